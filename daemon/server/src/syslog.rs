//! `berthd syslog-tls`, started by a container's shim: sends the messages on its standard input on, over TLS.
//!
//! One process per container that logs so. It goes on when the daemon ends, and ends with its container.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{Shutdown, TcpStream, ToSocketAddrs as _},
    os::fd::AsFd as _,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail};
use berth_engine::{SyslogTls, Trust};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme, StreamOwned,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject as _},
};

use crate::tls::certificates;

/// How long the service may take to take something.
const PATIENCE: Duration = Duration::from_secs(10);
/// A service that says more than this at the end (bytes) is not listened to.
const FAREWELL: u64 = 64 * 1024;
/// How long until one is tried again that is not there.
const RECONNECT: Duration = Duration::from_secs(1);
/// So often it is tried for a container that has ended.
const LAST_TRIES: u32 = 3;

type Stream = StreamOwned<ClientConnection, TcpStream>;

/// Serves until the container has ended.
pub(crate) fn run(wanted: &SyslogTls) -> anyhow::Result<()> {
    let config = Arc::new(client(&wanted.trust)?);
    let mut input = BufReader::new(io::stdin().lock());
    let (mut stream, mut message) = (None, Vec::new());
    while input.read_until(b'\n', &mut message).context("reading messages")? > 0 {
        let mut packet = if wanted.counted { format!("{} ", message.len()).into_bytes() } else { Vec::new() };
        packet.append(&mut message);
        deliver(&packet, &mut stream, || connect(&config, &wanted.address))?;
    }
    stream.map_or(Ok(()), |stream| close(stream).context("closing the connection"))
}

/// Says that this was all, and waits until the service has seen it. A socket that is closed with unread input (the
/// tickets of TLS 1.3) is reset, and what the service has not read by then is lost.
fn close(mut stream: Stream) -> io::Result<()> {
    stream.conn.send_close_notify();
    stream.flush()?;
    stream.sock.shutdown(Shutdown::Write)?;
    match io::copy(&mut stream.sock.take(FAREWELL), &mut io::sink()) {
        // It has had its time.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        read => read.map(drop),
    }
}

/// Sends one message, on a new connection where that is needed, and as often as that takes.
fn deliver(
    packet: &[u8],
    stream: &mut Option<Stream>,
    connect: impl Fn() -> anyhow::Result<Stream>,
) -> anyhow::Result<()> {
    let mut failures = 0;
    loop {
        let sent = match stream {
            Some(stream) => stream.write_all(packet).and_then(|()| stream.flush()).context("sending"),
            None => match connect() {
                Ok(made) => {
                    *stream = Some(made);
                    continue;
                }
                Err(error) => Err(error),
            },
        };
        let Err(error) = sent else { return Ok(()) };
        *stream = None;
        failures += 1;
        if failures == 1 {
            eprintln!("sending the log over TLS: {error:#}");
        } else if failures >= LAST_TRIES && has_ended() {
            bail!("lines of the log were not taken");
        }
        std::thread::sleep(RECONNECT);
    }
}

/// Whether the other end of standard input is gone.
fn has_ended() -> bool {
    let stdin = io::stdin();
    let mut input = [PollFd::new(stdin.as_fd(), PollFlags::empty())];
    poll(&mut input, PollTimeout::ZERO).is_ok()
        && input[0].revents().is_some_and(|seen| seen.contains(PollFlags::POLLHUP))
}

fn connect(config: &Arc<ClientConfig>, address: &str) -> anyhow::Result<Stream> {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())
        .with_context(|| format!("{host} is no name of a host"))?;
    let found = address.to_socket_addrs().with_context(|| format!("looking {address} up"))?;
    let mut last = None;
    for one in found {
        match TcpStream::connect_timeout(&one, PATIENCE) {
            Ok(tcp) => {
                tcp.set_write_timeout(Some(PATIENCE)).context("setting a timeout")?;
                tcp.set_read_timeout(Some(PATIENCE)).context("setting a timeout")?;
                let mut stream = StreamOwned::new(ClientConnection::new(Arc::clone(config), name)?, tcp);
                let greeted = stream.conn.complete_io(&mut stream.sock);
                greeted.with_context(|| format!("greeting {address}"))?;
                return Ok(stream);
            }
            Err(error) => last = Some(error),
        }
    }
    let why = last.unwrap_or_else(|| io::ErrorKind::NotFound.into());
    Err(why).with_context(|| format!("connecting to {address}"))
}

fn client(trust: &Trust) -> anyhow::Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let builder = if trust.anybody {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider)))
    } else {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if let Some(authority) = &trust.authority {
            for one in certificates(authority)? {
                roots.add(one).with_context(|| format!("using {}", authority.display()))?;
            }
        }
        builder.with_root_certificates(roots)
    };
    let (Some(certificate), Some(key)) = (&trust.certificate, &trust.key) else {
        return Ok(builder.with_no_client_auth());
    };
    let private = PrivateKeyDer::from_pem_file(key).with_context(|| format!("reading {}", key.display()))?;
    builder
        .with_client_auth_cert(certificates(certificate)?, private)
        .with_context(|| format!("using {} with {}", certificate.display(), key.display()))
}

/// `syslog-tls-skip-verify`: whoever answers is believed; that they have their certificate's key is still checked.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
