//! What each request to a server carries: token, cluster, headers of the operator.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue, MetadataMap};

use crate::config::raw::read_bounded;
use crate::config::server::{Header, Secret, TOKEN_DEFAULT, TokenSource};

/// A token file longer than this is none: headers of servers end at 8 to 16 KiB.
const TOKEN_BYTES_MAX: usize = 16 * 1024;
/// Names the cluster the token is from (spec: xds.md 1.1).
const CLUSTER_HEADER: &str = "clusterid";
const TOKEN_HEADER: &str = "authorization";

/// The token that servers know us by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token {
    /// There is none.
    None,
    /// A file, read for each request: it is replaced before its token expires.
    File(PathBuf),
    /// The token itself.
    Literal(Secret),
}

impl Token {
    /// Looks once whether the file exists (spec: xds.md 1.1).
    #[must_use]
    pub fn find(source: &TokenSource) -> Self {
        Self::find_by(source, Path::exists)
    }

    fn find_by(source: &TokenSource, exists: impl Fn(&Path) -> bool) -> Self {
        match source {
            TokenSource::Default if exists(Path::new(TOKEN_DEFAULT)) => {
                Self::File(TOKEN_DEFAULT.into())
            }
            TokenSource::Default => Self::None,
            TokenSource::Given(text) if exists(Path::new(text.reveal())) => {
                Self::File(text.reveal().into())
            }
            TokenSource::Given(text) => Self::Literal(text.clone()),
        }
    }
}

/// Headers of a request could not be made.
#[derive(Debug, thiserror::Error)]
pub enum HeadersError {
    /// The token file cannot be read.
    #[error("token file {}: {source}", .path.display())]
    Read {
        /// File.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The token is empty.
    #[error("{origin} is empty")]
    Empty {
        /// Where the token comes from.
        origin: String,
    },
    /// A text no header can carry.
    #[error("{origin} holds characters that no header can carry")]
    Characters {
        /// Where the text comes from.
        origin: String,
    },
    /// The process is ending.
    #[error("reading was given up, the process is ending")]
    Ending,
}

/// What each request carries.
#[derive(Clone, Debug)]
pub struct Headers {
    /// The token.
    pub token: Token,
    /// Own cluster.
    pub cluster_id: Arc<str>,
    /// Headers of the operator. Where one is called like ours, ours is sent.
    pub extra: Vec<Header>,
}

impl Headers {
    /// The headers of the next request; reads the token file.
    ///
    /// # Errors
    /// [`HeadersError`].
    pub async fn read(&self) -> Result<MetadataMap, HeadersError> {
        let mut map = self.without_token()?;
        if let Some((token, origin)) = self.token().await? {
            // A file made by hand ends in a line break, which no token does.
            let token = token.trim_end();
            if token.is_empty() {
                return Err(HeadersError::Empty { origin });
            }
            let mut bearer = value(&format!("Bearer {token}"), &origin)?;
            bearer.set_sensitive(true);
            map.insert(TOKEN_HEADER, bearer);
        }
        Ok(map)
    }

    /// The same for a server that knows us by our certificate.
    ///
    /// # Errors
    /// [`HeadersError::Characters`].
    pub fn without_token(&self) -> Result<MetadataMap, HeadersError> {
        let mut map = MetadataMap::new();
        for header in &self.extra {
            let name = AsciiMetadataKey::from_bytes(header.name.as_bytes());
            let value = AsciiMetadataValue::try_from(header.value.reveal());
            let (Ok(name), Ok(value)) = (name, value) else {
                let origin = format!("the header {}", header.name);
                return Err(HeadersError::Characters { origin });
            };
            map.insert(name, value);
        }
        map.insert(CLUSTER_HEADER, value(&self.cluster_id, "the cluster id")?);
        Ok(map)
    }

    /// The token and where it comes from.
    async fn token(&self) -> Result<Option<(String, String)>, HeadersError> {
        match &self.token {
            Token::None => Ok(None),
            Token::Literal(token) => {
                let origin = "the token given as text".to_owned();
                Ok(Some((token.reveal().to_owned(), origin)))
            }
            Token::File(path) => {
                let origin = format!("token file {}", path.display());
                let read = path.clone();
                let reading =
                    tokio::task::spawn_blocking(move || read_bounded(&read, TOKEN_BYTES_MAX));
                let read = reading.await.map_err(|_| HeadersError::Ending)?;
                let path = path.clone();
                let token = read.map_err(|source| HeadersError::Read { path, source })?;
                Ok(Some((token, origin)))
            }
        }
    }
}

fn value(text: &str, origin: &str) -> Result<AsciiMetadataValue, HeadersError> {
    AsciiMetadataValue::try_from(text).map_err(|_| HeadersError::Characters {
        origin: origin.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(token: Token) -> Headers {
        Headers {
            token,
            cluster_id: "Kubernetes".into(),
            extra: vec![Header {
                name: "header_foo".into(),
                value: Secret::new("foo"),
            }],
        }
    }

    #[tokio::test]
    async fn requests_carry_token_cluster_and_extra_headers() {
        let map = headers(Token::Literal(Secret::new("t0"))).read().await;
        let map = map.unwrap();
        assert_eq!(map.get("authorization").unwrap(), "Bearer t0");
        assert!(map.get("authorization").unwrap().is_sensitive());
        assert_eq!(map.get("clusterid").unwrap(), "Kubernetes");
        assert_eq!(map.get("header_foo").unwrap(), "foo");
        let map = headers(Token::None).read().await.unwrap();
        assert!(map.get("authorization").is_none());
    }

    #[tokio::test]
    async fn a_token_file_is_read_for_each_request() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let headers = headers(Token::File(path.clone()));
        for (text, sent) in [("one", "Bearer one"), ("two\n", "Bearer two")] {
            std::fs::write(&path, text).unwrap();
            let map = headers.read().await.unwrap();
            assert_eq!(map.get("authorization").unwrap(), sent);
        }
        for (text, why) in [("", "is empty"), ("\n", "is empty"), ("a\nb", "no header")] {
            std::fs::write(&path, text).unwrap();
            let error = headers.read().await.unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
            assert!(error.contains(path.to_str().unwrap()), "{error}");
        }
        std::fs::remove_file(&path).unwrap();
        let error = headers.read().await.unwrap_err().to_string();
        assert!(error.contains("No such file"), "{error}");
    }

    #[test]
    fn a_token_is_a_path_if_there_is_such_a_file() {
        let given = TokenSource::Given(Secret::new("/a/token"));
        let find = |source, there| Token::find_by(source, |_| there);
        assert_eq!(find(&given, true), Token::File("/a/token".into()));
        assert_eq!(find(&given, false), Token::Literal(Secret::new("/a/token")));
        assert_eq!(
            find(&TokenSource::Default, true),
            Token::File(TOKEN_DEFAULT.into())
        );
        assert_eq!(find(&TokenSource::Default, false), Token::None);
    }

    #[tokio::test]
    async fn headers_that_cannot_be_sent_are_named() {
        let mut headers = headers(Token::None);
        headers.extra[0].value = Secret::new("a\nb");
        let error = headers.read().await.unwrap_err().to_string();
        assert!(error.contains("header_foo"), "{error}");
    }
}
