//! A way to a server that can be cut, or fall silent.
//!
//! A connection that fell silent stays so for good, as one does whose state a router forgot: after the way is open again
//! only new connections are carried, and who holds an old one must find out by himself. Memory is bounded: what is not
//! carried on is not read either.

use std::{io, net::SocketAddr};

use tokio::{
    io::{copy, copy_bidirectional},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{JoinHandle, JoinSet},
};

/// What happens to what is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Open,
    /// Every connection is reset, and so is each new one.
    Cut,
    /// Connections stand, and are taken, and nothing is carried: half open.
    Silent,
    /// What clients send arrives, and no answer comes back.
    Unanswered,
}

/// Carries connections to a server, from a port of its own.
#[derive(Debug)]
pub struct Proxy {
    pub port: u16,
    way: watch::Sender<Way>,
    carrying: JoinHandle<()>,
}

impl Proxy {
    /// A proxy to a port of this machine, on a free one.
    pub async fn to(target: u16) -> io::Result<Self> {
        Self::on(TcpListener::bind("127.0.0.1:0").await?, target)
    }

    /// The same on a socket that is there already: a server may have to be told of it before it starts.
    pub fn on(listener: TcpListener, target: u16) -> io::Result<Self> {
        let port = listener.local_addr()?.port();
        let target = SocketAddr::from(([127, 0, 0, 1], target));
        let (way, ways) = watch::channel(Way::Open);
        let carrying = tokio::spawn(async move {
            // Dropped with this task, and all connections with it.
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(carry(client, target, ways.clone()));
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self {
            port,
            way,
            carrying,
        })
    }

    /// The address of a URL with this way to its server instead of the straight one.
    pub async fn in_url(url: &str) -> io::Result<(Self, String)> {
        let wrong = || {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("no URL with a port: {url}"),
            )
        };
        let (before, host_on) = url
            .rsplit_once('@')
            .or_else(|| url.split_once("//"))
            .ok_or_else(wrong)?;
        let separator = &url[before.len()..url.len() - host_on.len()];
        let (host, path) = host_on.split_once('/').unwrap_or((host_on, ""));
        let port = host
            .rsplit_once(':')
            .and_then(|(_, port)| port.parse().ok());
        let proxy = Self::to(port.ok_or_else(wrong)?).await?;
        let url = format!("{before}{separator}127.0.0.1:{}/{path}", proxy.port);
        Ok((proxy, url))
    }

    pub fn set(&self, way: Way) {
        self.way.send_replace(way);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.carrying.abort();
    }
}

async fn carry(mut client: TcpStream, target: SocketAddr, mut way: watch::Receiver<Way>) {
    let now = *way.borrow_and_update();
    if now == Way::Cut {
        return reset(&client);
    }
    if now == Way::Silent {
        return hold(client, way).await;
    }
    let Ok(mut server) = TcpStream::connect(target).await else {
        return reset(&client);
    };
    // Small messages there and back, at once: what is carried is no slower than what is not.
    for stream in [&client, &server] {
        drop(stream.set_nodelay(true));
    }
    if now == Way::Open {
        tokio::select! {
            _ = copy_bidirectional(&mut client, &mut server) => return,
            _ = way.wait_for(|way| *way != Way::Open) => {}
        }
    }
    let now = *way.borrow();
    match now {
        Way::Open => {}
        Way::Cut => {
            reset(&client);
            reset(&server);
        }
        // The server holds its end just as long.
        Way::Silent => hold((client, server), way).await,
        Way::Unanswered => {
            let (mut from_client, _to_client) = client.split();
            let (_from_server, mut to_server) = server.split();
            // The end of what a client sends arrives as well: a server does not hold what was given up.
            tokio::select! {
                _ = copy(&mut from_client, &mut to_server) => {}
                _ = way.wait_for(|way| *way == Way::Cut) => {}
            }
        }
    }
}

/// Keeps the connection, and nothing more, until all of them are cut.
async fn hold<T>(connection: T, mut way: watch::Receiver<Way>) {
    drop(way.wait_for(|way| *way == Way::Cut).await);
    drop(connection);
}

/// Ends it at once when it is dropped, with a reset.
fn reset(connection: &TcpStream) {
    drop(connection.set_zero_linger());
}

#[cfg(test)]
mod tests {
    use std::{io::ErrorKind, time::Duration};

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        time::timeout,
    };

    use super::*;

    /// Long enough for a byte to come back on this machine, if one does.
    const SILENCE: Duration = Duration::from_millis(200);

    async fn echo() -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.split();
                    drop(copy(&mut read, &mut write).await);
                });
            }
        });
        Proxy::to(port).await.unwrap()
    }

    async fn connect(proxy: &Proxy) -> TcpStream {
        TcpStream::connect(("127.0.0.1", proxy.port)).await.unwrap()
    }

    async fn echoes(stream: &mut TcpStream) -> std::io::Result<u8> {
        stream.write_u8(7).await?;
        stream.read_u8().await
    }

    #[tokio::test]
    async fn a_cut_way_resets_old_connections_and_new_ones() {
        let proxy = echo().await;
        let mut old = connect(&proxy).await;
        assert_eq!(echoes(&mut old).await.unwrap(), 7);
        proxy.set(Way::Cut);
        assert_eq!(
            old.read_u8().await.unwrap_err().kind(),
            ErrorKind::ConnectionReset
        );
        let mut new = connect(&proxy).await;
        assert!(echoes(&mut new).await.is_err());
        proxy.set(Way::Open);
        assert_eq!(echoes(&mut connect(&proxy).await).await.unwrap(), 7);
    }

    #[tokio::test]
    async fn what_fell_silent_stays_so_and_what_is_new_is_carried() {
        for way in [Way::Silent, Way::Unanswered] {
            let proxy = echo().await;
            let mut old = connect(&proxy).await;
            assert_eq!(echoes(&mut old).await.unwrap(), 7);
            proxy.set(way);
            let mut new = connect(&proxy).await;
            assert!(timeout(SILENCE, echoes(&mut old)).await.is_err(), "{way:?}");
            assert!(timeout(SILENCE, echoes(&mut new)).await.is_err(), "{way:?}");
            proxy.set(Way::Open);
            assert!(timeout(SILENCE, echoes(&mut old)).await.is_err(), "{way:?}");
            assert_eq!(echoes(&mut connect(&proxy).await).await.unwrap(), 7);
        }
    }
}
