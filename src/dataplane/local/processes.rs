//! The processes of this host behind connections: one question to the kernel each, and another one for
//! a control group that was not seen before. Both are answered at once.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;

use crate::config::limits::CGROUPS_KNOWN_MAX;
use crate::sys::cgroups::Cgroups;
use crate::sys::owner::SocketOwners;

/// A process that holds a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    /// Its user.
    pub(crate) uid: u32,
    /// Path of the control group it was in when it made the socket; `None`: that group has gone, or
    /// groups do not matter.
    pub(crate) cgroup: Option<Arc<str>>,
}

/// Looks processes up, for one shard.
#[derive(Debug)]
pub struct Processes {
    owners: SocketOwners,
    cgroups: Option<Cgroups>,
    /// Numbers are never used twice and groups never renamed, so that what is known stays true.
    known: RefCell<HashMap<u64, Arc<str>>>,
}

impl Processes {
    /// For the network namespace of the calling thread; with the root of control groups v2 if they
    /// matter.
    ///
    /// # Errors
    /// When the kernel does not let us ask, or `cgroup_root` is none.
    pub fn open(cgroup_root: Option<&Path>) -> io::Result<Self> {
        Ok(Self {
            owners: SocketOwners::open()?,
            cgroups: cgroup_root.map(Cgroups::open).transpose()?,
            known: RefCell::default(),
        })
    }

    /// Proves that this kernel tells all that matters, by a socket of our own.
    ///
    /// # Errors
    /// What it does not tell.
    pub fn check(&self) -> io::Result<()> {
        let own = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let nobody = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let unsupported = |what: &str| io::Error::new(io::ErrorKind::Unsupported, what);
        let owner = self
            .owners
            .of(own.local_addr()?, nobody)?
            .ok_or_else(|| unsupported("the kernel does not find our own socket (tcp_diag)"))?;
        if let Some(cgroups) = &self.cgroups {
            let id = owner.cgroup;
            let id =
                id.ok_or_else(|| unsupported("the kernel does not tell cgroups (Linux 5.7)"))?;
            cgroups.path_of(id)?;
        }
        Ok(())
    }

    /// The process that connected from `client` to `server`; `None`: none of this host holds that end.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub(super) fn of(&self, client: SocketAddr, server: SocketAddr) -> io::Result<Option<Process>> {
        let Some(owner) = self.owners.of(client, server)? else {
            return Ok(None);
        };
        let cgroup = match (&self.cgroups, owner.cgroup) {
            (Some(cgroups), Some(id)) => self.path(cgroups, id)?,
            _ => None,
        };
        Ok(Some(Process {
            uid: owner.uid,
            cgroup,
        }))
    }

    fn path(&self, cgroups: &Cgroups, id: u64) -> io::Result<Option<Arc<str>>> {
        let mut known = self.known.borrow_mut();
        if let Some(path) = known.get(&id) {
            return Ok(Some(Arc::clone(path)));
        }
        let Some(path) = cgroups.path_of(id)? else {
            return Ok(None);
        };
        if known.len() >= CGROUPS_KNOWN_MAX {
            // Those of connections to come are soon known again; most of the others have gone.
            known.clear();
        }
        let path: Arc<str> = path.into();
        known.insert(id, Arc::clone(&path));
        Ok(Some(path))
    }
}
