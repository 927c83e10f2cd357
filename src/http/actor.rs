//! Who asks for a change, as they say: there is no proof of it.

use axum::{
    extract::FromRequestParts,
    http::{HeaderName, request::Parts},
};

use super::error::ApiError;

pub(super) const STOCK_ACTOR: HeaderName = HeaderName::from_static("stock-actor");
/// Longest name of who asks, in characters.
const CHARS_MAX: usize = 100;

/// Who asks for a change; `None` where nobody says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Actor(pub(super) Option<String>);

impl<S: Sync> FromRequestParts<S> for Actor {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let mut said = parts.headers.get_all(STOCK_ACTOR).iter();
        let Some(value) = said.next() else {
            return Ok(Self(None));
        };
        let is_one = |name: &&str| {
            let is_short = (1..=CHARS_MAX).contains(&name.chars().count());
            is_short && !name.chars().any(char::is_control)
        };
        let name = str::from_utf8(value.as_bytes()).ok().filter(is_one);
        // Two names are none.
        match (name, said.next()) {
            (Some(name), None) => Ok(Self(Some(name.to_owned()))),
            _ => Err(ApiError::BadRequest(
                "Stock-Actor must be 1 to 100 printable characters",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    #[tokio::test]
    async fn a_name_is_what_people_can_read() {
        async fn actor(names: &[&[u8]]) -> Result<Option<String>, ApiError> {
            let mut request = Request::builder();
            for name in names {
                request = request.header("Stock-Actor", *name);
            }
            let (mut parts, ()) = request.body(()).unwrap().into_parts();
            let actor = Actor::from_request_parts(&mut parts, &()).await;
            actor.map(|actor| actor.0)
        }
        assert_eq!(actor(&[]).await.unwrap(), None);
        for name in ["a", "Jörg, night shift", &"x".repeat(100)] {
            assert_eq!(
                actor(&[name.as_bytes()]).await.unwrap().as_deref(),
                Some(name)
            );
        }
        let long = [b'x'; 101];
        for names in [
            &[&b""[..]][..],
            &[&long],
            &[b"a\tb"],
            &[b"\xff"],
            &[b"a", b"b"],
        ] {
            assert!(actor(names).await.is_err(), "{names:?}");
        }
    }
}
