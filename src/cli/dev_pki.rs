//! `corelane dev pki`: a throw-away certificate authority and an identity directory.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use crate::model::identity::Identity;
use crate::tls::dev_pki::folder::{self, Request, WriteError, Written};

const SECONDS_OF_A_DAY: u64 = 24 * 3600;
/// Ten years: enough for any trial, and far from the end of what certificates can express.
const DAYS_MAX: i64 = 3650;

/// Makes a throw-away certificate authority and certificates for demos and tests.
///
/// Writes DIR/ns/NAMESPACE/sa/SERVICE_ACCOUNT/{tls.crt,tls.key,ca.crt}, the layout that
/// CORELANE_IDENTITY_DIR reads. All identities of one run trust each other and nobody else. Not for
/// production.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Args {
    /// Directory to write into; made if it is not there.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Identities to issue certificates for.
    #[arg(
        long = "identity",
        value_name = "NAMESPACE/SERVICE_ACCOUNT",
        required = true,
        num_args = 1..,
        value_parser = parse_account
    )]
    pub identities: Vec<(String, String)>,
    /// Trust domain of the identities.
    #[arg(long, value_name = "DOMAIN", default_value = "cluster.local", value_parser = parse_name)]
    pub trust_domain: String,
    /// Days until the certificates expire.
    #[arg(long, value_name = "N", default_value_t = 30,
          value_parser = clap::value_parser!(u16).range(1..=DAYS_MAX))]
    pub days: u16,
    /// Replace certificates that are there already.
    #[arg(long)]
    pub force: bool,
    /// Also write the authority's own certificate and key to DIR/ca.
    #[arg(long)]
    pub keep_ca: bool,
}

/// Runs the subcommand: 0 written, 1 not written.
#[must_use]
pub(super) fn run(args: &Args) -> ExitCode {
    let mut identities: Vec<Identity> = Vec::new();
    let mut seen = BTreeSet::new();
    for (namespace, service_account) in &args.identities {
        let (namespace, service_account) = (namespace.as_str(), service_account.as_str());
        let identity = Identity::new(args.trust_domain.as_str(), namespace, service_account);
        if seen.insert(identity.clone()) {
            identities.push(identity);
        }
    }
    let request = Request {
        out: &args.out,
        identities: &identities,
        lifetime: Duration::from_secs(u64::from(args.days) * SECONDS_OF_A_DAY),
        force: args.force,
        keep_authority: args.keep_ca,
    };
    let told = match folder::write(&request, SystemTime::now()) {
        Ok(written) => {
            let told = tell(&mut io::stdout().lock(), args, &identities, &written);
            told.map(|()| ExitCode::SUCCESS)
        }
        Err(error) => complain(&mut io::stderr().lock(), &error).map(|()| ExitCode::FAILURE),
    };
    // A reader that went away does not undo what was written.
    told.unwrap_or(ExitCode::FAILURE)
}

fn tell(
    out: &mut impl Write,
    args: &Args,
    identities: &[Identity],
    written: &Written,
) -> io::Result<()> {
    let count = identities.len();
    let noun = if count == 1 { "identity" } else { "identities" };
    writeln!(
        out,
        "Throw-away PKI in {} ({count} {noun}, valid {} days). For demos and tests only.\n",
        args.out.display(),
        args.days
    )?;
    for (identity, folder) in identities.iter().zip(&written.folders) {
        writeln!(out, "  {identity}")?;
        writeln!(out, "    {}/{{tls.crt,tls.key,ca.crt}}", folder.display())?;
    }
    match &written.authority {
        Some(folder) => writeln!(
            out,
            "\nThe authority is in {}: who has its key can be any identity.",
            folder.display()
        )?,
        None => writeln!(
            out,
            "\nThe authority's key was not kept: for more identities run this again with all of them \
             and --force."
        )?,
    }
    if !written.strangers.is_empty() {
        writeln!(
            out,
            "\nNot made now, so not trusted by these and not trusting them:"
        )?;
        for folder in &written.strangers {
            writeln!(out, "  {}", folder.display())?;
        }
    }
    let Some(first) = identities.first() else {
        return Ok(());
    };
    let (namespace, account) = (&first.namespace, &first.service_account);
    writeln!(
        out,
        "\nNext, a node for one of them (its workload must be in state.yaml):\n\n  \
         CORELANE_IDENTITY_DIR={} PROXY_MODE=dedicated \\\n  \
         PROXY_WORKLOAD_INFO={namespace}/{account}/{account} \\\n  \
         XDS_ADDRESS= LOCAL_XDS_PATH=state.yaml corelane proxy",
        args.out.display()
    )
}

fn complain(out: &mut impl Write, error: &WriteError) -> io::Result<()> {
    writeln!(out, "error: {error}")?;
    if matches!(error, WriteError::Exists(_)) {
        writeln!(out, "hint: --force replaces it")?;
    }
    Ok(())
}

fn parse_account(text: &str) -> Result<(String, String), String> {
    let (namespace, account) = text
        .split_once('/')
        .ok_or("expected NAMESPACE/SERVICE_ACCOUNT, such as default/client")?;
    Ok((parse_name(namespace)?, parse_name(account)?))
}

/// A name as Kubernetes has it, so that it is one path step and needs no escaping in a URI.
fn parse_name(text: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if text.is_empty() || !text.bytes().all(plain) || text.bytes().all(|byte| byte == b'.') {
        return Err(format!(
            "{text:?} is not a name (letters, digits, '-', '.', '_')"
        ));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn parse(text: &str) -> Result<Args, clap::Error> {
        Line::try_parse_from(["pki"].into_iter().chain(text.split_whitespace())).map(|l| l.args)
    }

    #[test]
    fn several_identities_are_taken_in_either_spelling() {
        for text in [
            "--out d --identity default/a other/b",
            "--out d --identity default/a --identity other/b",
        ] {
            let args = parse(text).unwrap();
            let wanted = [("default", "a"), ("other", "b")].map(|(n, a)| (n.into(), a.into()));
            assert_eq!(args.identities, wanted, "{text}");
            assert_eq!(
                (args.trust_domain.as_str(), args.days),
                ("cluster.local", 30)
            );
            assert!(!args.force && !args.keep_ca);
        }
    }

    #[test]
    fn incomplete_or_odd_arguments_are_refused() {
        for text in [
            "--out d",
            "--identity a/b",
            "--out d --identity a",
            "--out d --identity /b",
            "--out d --identity a/b/c",
            "--out d --identity ../b",
            "--out d --identity a/b --days 0",
            "--out d --identity a/b --days 4000",
            "--out d --identity a/b --trust-domain x/y",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_answer_names_what_was_written_and_what_to_run() {
        let dir = tempfile::TempDir::new().unwrap();
        let out = dir.path().join("ids");
        let line = format!("--out {} --identity default/a default/b", out.display());
        let args = parse(&line).unwrap();
        let identities = ["a", "b"].map(|name| Identity::new("cluster.local", "default", name));
        let request = Request {
            out: &out,
            identities: &identities,
            lifetime: Duration::from_secs(60),
            force: false,
            keep_authority: false,
        };
        let written = folder::write(&request, SystemTime::now()).unwrap();
        let mut told = Vec::new();
        tell(&mut told, &args, &identities, &written).unwrap();
        let told = String::from_utf8(told).unwrap();
        for part in [
            "2 identities",
            "spiffe://cluster.local/ns/default/sa/b",
            "ids/ns/default/sa/a/{tls.crt,tls.key,ca.crt}",
            "PROXY_WORKLOAD_INFO=default/a/a",
            "not kept",
        ] {
            assert!(told.contains(part), "{part} in {told}");
        }
        let error = folder::write(&request, SystemTime::now()).unwrap_err();
        let mut told = Vec::new();
        complain(&mut told, &error).unwrap();
        let told = String::from_utf8(told).unwrap();
        assert!(
            told.contains("exists already; nothing was written"),
            "{told}"
        );
        assert!(told.ends_with("hint: --force replaces it\n"), "{told}");
    }
}
