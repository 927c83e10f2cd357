//! A throw-away certificate authority, and who it vouches for.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};

/// An authority; its files are gone with it.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: PathBuf,
    /// Its own certificate.
    pub ca: PathBuf,
}

/// A certificate, as files.
#[derive(Clone, Debug)]
pub struct Identity {
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// Key and certificate in one file.
    pub both: PathBuf,
    folder: PathBuf,
}

impl Authority {
    pub fn new() -> Self {
        let folder = std::env::temp_dir().join(super::unique("tls"));
        fs::create_dir(&folder).expect("a folder");
        let mut params = CertificateParams::default();
        let name = super::unique("authority");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("an authority");
        let ca = folder.join("ca.pem");
        fs::write(&ca, issuer.pem()).expect("a file");
        Self { issuer, folder, ca }
    }

    /// A new certificate for that host, or that client, in files of that name.
    pub fn vouch(&self, file: &str, host: &str) -> Identity {
        let mut params = CertificateParams::new([host.to_owned()]).expect("a name");
        params.distinguished_name.push(DnType::CommonName, host);
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let path = |end: &str| self.folder.join(format!("{file}{end}"));
        let identity = Identity {
            certificate: path(".pem"),
            key: path(".key"),
            both: path(".both.pem"),
            folder: self.folder.clone(),
        };
        let (certificate, key) = (certificate.pem(), key.serialize_pem());
        fs::write(&identity.certificate, &certificate).expect("a file");
        fs::write(&identity.key, &key).expect("a file");
        fs::write(&identity.both, format!("{key}{certificate}")).expect("a file");
        for secret in [&identity.key, &identity.both] {
            fs::set_permissions(secret, fs::Permissions::from_mode(0o600)).expect("for one alone");
            for_postgres(secret);
        }
        identity
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.folder));
    }
}

impl Identity {
    /// Another file, beside the certificate.
    pub fn beside(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.join(name);
        fs::write(&path, text).expect("a file");
        path
    }
}

/// A server that root starts runs as somebody else, and only its owner may read a key.
fn for_postgres(path: &Path) {
    let is_root = Command::new("id").arg("-u").output().expect("id").stdout == b"0\n";
    if !is_root {
        return;
    }
    let there_is = Command::new("id").args(["-u", "postgres"]).output();
    let user = if there_is.expect("id").status.success() {
        "postgres"
    } else {
        "nobody"
    };
    let status = Command::new("chown").arg(user).arg(path).status();
    assert!(status.expect("chown").success(), "chown");
}
