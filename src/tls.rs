//! TLS: what this process shows to those who call it, and whom it trusts where it calls over HTTPS itself.
//!
//! Invariant: what is shown belongs together. Files that cannot be read, hold no certificate, or whose key is another one's are told of
//! in the log, and what was shown before stays. Versions and ciphers are the library's defaults: TLS 1.2 and 1.3.
//!
//! `PostgreSQL`, Redis and Kafka are reached through their clients, which have TLS of their own.

use std::{
    fs::File,
    io::{self, Read},
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use sha2::{Digest, Sha256};
use tokio::net::{TcpStream, ToSocketAddrs};
use tokio_rustls::{
    TlsAcceptor, TlsConnector,
    client::TlsStream,
    rustls::{
        self, ClientConfig, RootCertStore, ServerConfig,
        crypto::{CryptoProvider, aws_lc_rs},
        pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
        server::{VerifierBuilderError, WebPkiClientVerifier},
    },
};
use tokio_util::either::Either;

/// Largest file that is read, in bytes: a chain has some kilobytes, all the roots of a system some hundreds.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// The protocol that is spoken, by its registered name.
const HTTP_1_1: &[u8] = b"http/1.1";

/// Why there is no TLS. It names files, and nothing of what is in them.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{path}: {error}")]
    File { path: PathBuf, error: io::Error },
    #[error("{path}: no {what} in it (PEM)")]
    Nothing { path: PathBuf, what: &'static str },
    #[error("{path}: {error}")]
    Refused { path: PathBuf, error: rustls::Error },
    #[error("{path}: {error}")]
    Clients {
        path: PathBuf,
        error: VerifierBuilderError,
    },
    #[error("TLS: {0}")]
    Rustls(#[from] rustls::Error),
}

/// Where the certificate of a door is: PEM files.
#[derive(Clone, Debug)]
pub struct Files {
    /// The certificate and those between it and the root, in this order.
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// Who signs the certificates that clients have to show; `None`: they show none.
    pub client_ca: Option<PathBuf>,
}

/// What is shown at a door, as its files are by now.
#[derive(Clone, Debug)]
pub struct Identity(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    files: Files,
    shown: RwLock<Arc<ServerConfig>>,
    last: Mutex<Last>,
}

/// What the last look at the files found.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Last {
    /// Files with this digest, whatever they were worth.
    Read([u8; 32]),
    Unreadable(String),
}

impl Identity {
    /// Reads the files.
    pub fn read(files: Files) -> Result<Self, TlsError> {
        let contents = Contents::read(&files)?;
        let shown = contents.server(&files)?;
        Ok(Self(Arc::new(Inner {
            files,
            shown: RwLock::new(Arc::new(shown)),
            last: Mutex::new(Last::Read(contents.digest())),
        })))
    }

    /// For the next handshake.
    pub fn acceptor(&self) -> TlsAcceptor {
        let shown = self.0.shown.read().unwrap_or_else(PoisonError::into_inner);
        TlsAcceptor::from(Arc::clone(&shown))
    }

    /// Reads the files again, and shows what is in them from now on if it is new and of use. What is wrong with them is told once.
    /// Blocks.
    pub fn read_again(&self) {
        let Inner { files, shown, last } = &*self.0;
        let contents = Contents::read(files);
        let found = match &contents {
            Ok(contents) => Last::Read(contents.digest()),
            Err(error) => Last::Unreadable(error.to_string()),
        };
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        if *last == found {
            return;
        }
        *last = found;
        match contents.and_then(|contents| contents.server(files)) {
            Ok(server) => {
                *shown.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(server);
                let certificate = files.certificate.display();
                tracing::info!(%certificate, "the certificate was read anew");
            }
            Err(error) => {
                tracing::error!(%error, "a new certificate cannot be used; the old one stays");
            }
        }
    }
}

/// What is in the files.
struct Contents {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

impl Contents {
    fn read(files: &Files) -> Result<Self, TlsError> {
        Ok(Self {
            certificate: read(&files.certificate)?,
            key: read(&files.key)?,
            client_ca: files.client_ca.as_deref().map(read).transpose()?,
        })
    }

    fn digest(&self) -> [u8; 32] {
        let client_ca = self.client_ca.as_deref().unwrap_or_default();
        let parts = [&self.certificate, &self.key, client_ca];
        let mut digest = Sha256::new();
        for part in parts {
            digest.update(part.len().to_be_bytes());
            digest.update(part);
        }
        digest.finalize().into()
    }

    fn server(&self, files: &Files) -> Result<ServerConfig, TlsError> {
        let provider = provider();
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?;
        let builder = match (&self.client_ca, &files.client_ca) {
            (Some(pem), Some(path)) => {
                let roots = Arc::new(roots(pem, path)?);
                let clients = WebPkiClientVerifier::builder_with_provider(roots, provider);
                let clients = clients.build().map_err(|error| TlsError::Clients {
                    path: path.clone(),
                    error,
                })?;
                builder.with_client_cert_verifier(clients)
            }
            _ => builder.with_no_client_auth(),
        };
        let chain = certificates(&self.certificate, &files.certificate)?;
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(|_| TlsError::Nothing {
            path: files.key.clone(),
            what: "private key",
        })?;
        let refused = |error| TlsError::Refused {
            path: files.certificate.clone(),
            error,
        };
        let mut config = builder.with_single_cert(chain, key).map_err(refused)?;
        config.alpn_protocols = vec![HTTP_1_1.to_vec()];
        Ok(config)
    }
}

/// Whose certificates are good enough.
#[derive(Clone, Debug)]
pub struct Trust(Arc<ClientConfig>);

/// A way to an HTTP service.
pub type Stream = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// What is in a file of certificates to trust, once it is known that there are some.
pub fn trusted_pem(path: &Path) -> Result<Vec<u8>, TlsError> {
    let pem = read(path)?;
    roots(&pem, path)?;
    Ok(pem)
}

/// How services are asked over HTTPS: they have to show a certificate of one of those in the file, or, without one, of one of those
/// whom this system trusts.
pub fn trust(ca: Option<&Path>) -> Result<Trust, TlsError> {
    let trusted = match ca {
        Some(path) => roots(&read(path)?, path)?,
        None => system_roots(),
    };
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(trusted)
        .with_no_client_auth();
    config.alpn_protocols = vec![HTTP_1_1.to_vec()];
    Ok(Trust(Arc::new(config)))
}

/// Connects; with somebody to trust it has to be shown a certificate for `host`.
pub async fn connect(
    address: impl ToSocketAddrs,
    tls: Option<(&Trust, &str)>,
) -> io::Result<Stream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    over(stream, tls).await
}

/// The same over a connection that is there.
pub async fn over(stream: TcpStream, tls: Option<(&Trust, &str)>) -> io::Result<Stream> {
    let Some((trust, host)) = tls else {
        return Ok(Either::Left(stream));
    };
    let name = host_name(host)?;
    let connector = TlsConnector::from(Arc::clone(&trust.0));
    let stream = connector.connect(name, stream).await?;
    Ok(Either::Right(Box::new(stream)))
}

/// The name without the port, as certificates have it.
fn host_name(host: &str) -> io::Result<ServerName<'static>> {
    let is_port = |port: &str| port.bytes().all(|digit| digit.is_ascii_digit());
    let name = match host.rsplit_once(':') {
        Some((name, port)) if is_port(port) && !name.ends_with(':') => name,
        _ => host,
    };
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = bare.parse::<IpAddr>() {
        return Ok(ServerName::from(address));
    }
    ServerName::try_from(bare.to_owned()).map_err(io::Error::other)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn roots(pem: &[u8], path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem, path)? {
        roots.add(certificate).map_err(|error| TlsError::Refused {
            path: path.to_owned(),
            error,
        })?;
    }
    Ok(roots)
}

/// What cannot be read of them is left out, as everywhere: systems collect curiosities.
fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

/// At least one.
fn certificates(pem: &[u8], path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(TlsError::Nothing {
            path: path.to_owned(),
            what: "certificate",
        }),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let read = || {
        let mut bytes = Vec::new();
        let mut file = File::open(path)?.take(FILE_BYTES_MAX + 1);
        file.read_to_end(&mut bytes)?;
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(bytes)
    };
    read().map_err(|error| TlsError::File {
        path: path.to_owned(),
        error,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_what_certificates_have() {
        for (host, name) in [
            ("stock.example:443", "stock.example"),
            ("stock.example", "stock.example"),
            ("127.0.0.1:8000", "127.0.0.1"),
            ("[::1]:8000", "::1"),
            ("::1", "::1"),
        ] {
            assert_eq!(host_name(host).unwrap().to_str(), name, "{host}");
        }
        host_name("no name:1").unwrap_err();
    }

    #[test]
    fn what_is_wrong_with_a_file_is_told_with_its_name() {
        let error = trust(Some(Path::new("/no/such/ca.pem"))).err().unwrap();
        assert!(
            error.to_string().starts_with("/no/such/ca.pem: "),
            "{error}"
        );
        let error = trust(Some(Path::new("Cargo.toml"))).err().unwrap();
        assert_eq!(error.to_string(), "Cargo.toml: no certificate in it (PEM)");
    }
}
