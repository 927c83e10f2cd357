//! What the service is compared with, as a process of its own, as the service is: this program again, told to serve.

use std::process::{Child, Command, Stdio};

use super::world::{Outcome, free_port, until};

/// A server that does as little as can be. It ends with its owner.
pub struct Bare {
    process: Child,
    pub port: u16,
}

impl Bare {
    /// Starts one with these arguments, the last of which is followed by its port; it answers.
    pub async fn start(arguments: &[&str], port_argument: &str) -> Outcome<Self> {
        let port = free_port()?;
        let process = Command::new(std::env::current_exe()?)
            .args(arguments)
            .args([port_argument, &port.to_string()])
            .stdout(Stdio::null())
            .spawn()?;
        let bare = Self { process, port };
        until("the bare server answers", async || {
            let connected = tokio::net::TcpStream::connect(("127.0.0.1", port)).await;
            Ok(connected.ok())
        })
        .await?;
        Ok(bare)
    }

    pub fn id(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
