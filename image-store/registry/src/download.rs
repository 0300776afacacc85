//! A file from anywhere on the web: what `docker import URL` takes.

use std::io::{self, Read};

use futures_util::TryStreamExt;
use reqwest::StatusCode;
use tokio_util::io::{StreamReader, SyncIoBridge};
use url::Url;

use crate::error::RegistryError;
use crate::failure::{Failure, refusal};
use crate::hosts::Tls;
use crate::transport::Transport;

/// A file that is coming. It is read by a thread that may block.
pub struct Download {
    /// Its bytes.
    pub bytes: Box<dyn Read + Send>,
    /// How many there are, if the server says so.
    pub length: Option<u64>,
}

/// The address that a user means; without a scheme it is docker's `http`.
pub(crate) fn address(text: &str) -> Result<Url, RegistryError> {
    let whole = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    Url::parse(&whole)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
        .ok_or_else(|| RegistryError::BadUrl(text.to_owned()))
}

pub(crate) async fn open(transport: &Transport, url: Url) -> Result<Download, RegistryError> {
    let failed = |failure: Failure| RegistryError::Download {
        url: url.to_string(),
        reason: failure.in_general().to_string(),
    };
    let request = transport.client(&Tls::default())?.get(url.clone());
    let response = request.send().await.map_err(|error| failed(Failure::of_request(&error)))?;
    let status = response.status();
    if !status.is_success() {
        return Err(match refusal(response).await {
            Failure::Status { message, .. } if matches!(status, StatusCode::NOT_FOUND | StatusCode::GONE) => {
                RegistryError::NoFile { url: url.to_string(), status: status.to_string(), message }
            }
            other => failed(other),
        });
    }
    let length = response.content_length();
    let stream = StreamReader::new(response.bytes_stream().map_err(io::Error::other));
    Ok(Download { bytes: Box::new(SyncIoBridge::new(Box::pin(stream))), length })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let shown = |text: &str| address(text).map(|url| url.to_string()).map_err(|error| error.to_string());
        assert_eq!(shown("example.com/a.tar").unwrap(), "http://example.com/a.tar");
        assert_eq!(shown("https://example.com:8443/a").unwrap(), "https://example.com:8443/a");
        for bad in ["file:///etc/passwd", "", "http://", "ftp://example.com/a"] {
            assert_eq!(
                shown(bad).unwrap_err(),
                format!("{bad:?} is no address of a file: use http:// or https://")
            );
        }
    }
}
