//! TLS to a daemon: docker's three files.

use std::{io, path::PathBuf, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem, pem::PemObject as _},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

/// How a daemon and we know each other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trust {
    /// Certificates of the authorities that may vouch for the daemon; none: those of this system.
    pub authority: Option<PathBuf>,
    /// Our own certificate.
    pub certificate: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
}

/// Speaks TLS on a connection to `host:port`.
pub(crate) async fn connect(
    address: &str,
    trust: &Trust,
    stream: TcpStream,
) -> io::Result<TlsStream<TcpStream>> {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned()).map_err(io::Error::other)?;
    TlsConnector::from(Arc::new(config(trust)?)).connect(name, stream).await
}

fn config(trust: &Trust) -> io::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    match &trust.authority {
        Some(path) => {
            for one in certificates(path)? {
                roots.add(one).map_err(|error| about(path, &error))?;
            }
        }
        None => drop(roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(io::Error::other)?.with_root_certificates(roots);
    let (Some(certificate), Some(key)) = (&trust.certificate, &trust.key) else {
        return Ok(builder.with_no_client_auth());
    };
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| about(key, &error))?;
    let config = builder.with_client_auth_cert(certificates(certificate)?, private);
    config.map_err(|error| about(certificate, &error))
}

fn certificates(path: &PathBuf) -> io::Result<Vec<CertificateDer<'static>>> {
    let read = || CertificateDer::pem_file_iter(path)?.collect::<Result<Vec<_>, pem::Error>>();
    read().map_err(|error| about(path, &error))
}

fn about(path: &std::path::Path, error: &dyn std::error::Error) -> io::Error {
    io::Error::other(format!("{}: {error}", path.display()))
}
