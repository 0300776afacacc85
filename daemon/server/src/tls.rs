//! TLS for TCP listeners: docker's three files, and clients that must have a certificate of the same authority.

use std::{path::Path, sync::Arc};

use anyhow::{Context as _, bail};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
};
use tokio_rustls::TlsAcceptor;

use crate::args::Args;

/// The listener's side of TLS; `None` without `--tls` and `--tlsverify`.
pub(crate) fn acceptor(args: &Args) -> anyhow::Result<Option<TlsAcceptor>> {
    if !args.tls && !args.tlsverify {
        return Ok(None);
    }
    let (Some(certificate), Some(key)) = (&args.tlscert, &args.tlskey) else {
        bail!("TLS needs --tlscert FILE and --tlskey FILE");
    };
    // One provider for the whole process; that it is there already is no error.
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let builder = ServerConfig::builder();
    let builder = match (&args.tlscacert, args.tlsverify) {
        (Some(authority), true) => {
            let mut roots = RootCertStore::empty();
            for one in certificates(authority)? {
                roots.add(one).with_context(|| format!("using {}", authority.display()))?;
            }
            let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build();
            builder.with_client_cert_verifier(
                verifier.with_context(|| format!("using {}", authority.display()))?,
            )
        }
        (None, true) => bail!("--tlsverify needs --tlscacert FILE, whose authority signs the clients"),
        (_, false) => builder.with_no_client_auth(),
    };
    let private = PrivateKeyDer::from_pem_file(key).with_context(|| format!("reading {}", key.display()))?;
    let mut config = builder
        .with_single_cert(certificates(certificate)?, private)
        .with_context(|| format!("using {} with {}", certificate.display(), key.display()))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Some(TlsAcceptor::from(Arc::new(config))))
}

pub(crate) fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let read = || CertificateDer::pem_file_iter(path)?.collect::<Result<Vec<_>, _>>();
    let list = read().with_context(|| format!("reading {}", path.display()))?;
    if list.is_empty() {
        bail!("there is no certificate in {}", path.display());
    }
    Ok(list)
}
