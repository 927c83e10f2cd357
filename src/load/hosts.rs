//! The services that are loaded: one or several over one database, all of them by HTTPS or none.

use std::io;

use crate::tls::{self, Stream, Trust};

/// Where they are.
#[derive(Clone, Debug)]
pub struct Hosts {
    /// `host:port` of each.
    names: Vec<String>,
    /// Whose certificates they have to show; `None`: plain HTTP.
    trust: Option<Trust>,
}

impl From<Vec<String>> for Hosts {
    /// By plain HTTP.
    fn from(names: Vec<String>) -> Self {
        Self { names, trust: None }
    }
}

impl Hosts {
    #[must_use]
    pub fn with_tls(self, trust: Trust) -> Self {
        Self {
            trust: Some(trust),
            ..self
        }
    }

    pub(super) fn names(&self) -> &[String] {
        &self.names
    }

    /// The name of a user's host, in turn.
    pub(super) fn name(&self, number: usize) -> &str {
        self.names
            .get(number % self.names.len().max(1))
            .map_or("", String::as_str)
    }

    /// A new connection to it.
    pub(super) async fn connect(&self, number: usize) -> io::Result<Stream> {
        let name = self.name(number);
        tls::connect(name, self.trust.as_ref().map(|trust| (trust, name))).await
    }
}
