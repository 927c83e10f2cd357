//! Lets in who may do what they ask for, and tells the others why not (RFC 6750).
//!
//! Invariant: a request that reaches a handler may do what its route asks for; only which warehouses it may do it with is left to the
//! handler, which asks its [`Sender`].

use std::{sync::Arc, time::Duration};

use axum::{
    extract::{FromRequestParts, MatchedPath, Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header, request::Parts},
    middleware::Next,
    response::Response,
};
use tokio::time::sleep;

use super::{
    Door,
    error::{ApiError, Cause, no_such_route, problem, unavailable},
    rates::{Asker, Rates},
    rights::{self, LIVE, METRICS, Over, PROBES, Right},
};
use crate::{
    access::{Access, Caller, Denied, TokenError},
    domain::{
        WarehouseId,
        access::{Reach, Scope},
    },
};

/// How long the answer to who asks too often takes.
const REFUSED_AFTER: Duration = Duration::from_millis(100);
const NO_CREDENTIAL: &str = "A key or a token is needed: Authorization: Bearer";
pub(super) const NOT_YOURS: &str = "This warehouse is not one of yours";
const NOT_ALL_YOURS: &str = "This is about all warehouses, and only some are yours";

/// Who sent a request.
#[derive(Clone, Debug, Default)]
pub(super) struct Sender(
    /// `None` where nobody has to say.
    Option<Caller>,
);

impl<S: Sync> FromRequestParts<S> for Sender {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_default())
    }
}

impl Sender {
    pub(super) fn caller(&self) -> Option<&Caller> {
        self.0.as_ref()
    }

    /// What they are called, if they proved it.
    pub(super) fn name(&self) -> Option<&Arc<str>> {
        self.0.as_ref().map(|caller| &caller.principal.name)
    }

    pub(super) fn reach(&self) -> &Reach {
        const ALL: &Reach = &Reach::All;
        self.0
            .as_ref()
            .map_or(ALL, |caller| &caller.principal.reach)
    }

    /// That they may see and change what stands in this warehouse.
    pub(super) fn reaches(&self, warehouse: WarehouseId) -> Result<(), ApiError> {
        if self.reach().has(warehouse) {
            Ok(())
        } else {
            Err(ApiError::Forbidden(NOT_YOURS))
        }
    }

    /// The same of a warehouse that the service chooses.
    pub(super) fn reaches_all(&self) -> Result<(), ApiError> {
        match self.reach() {
            Reach::All => Ok(()),
            Reach::Only(_) => Err(ApiError::Forbidden(
                "Say which of your warehouses it is about",
            )),
        }
    }
}

/// What the layer works with.
#[derive(Clone)]
pub(super) struct Guard {
    /// `None` where nobody has to prove who they are.
    pub(super) access: Option<Arc<Access>>,
    /// `None` where everybody may ask as often as they like.
    pub(super) rates: Option<Arc<Rates>>,
    pub(super) door: Door,
}

/// A layer: what only those may ask for who run the service is not at the door for strangers.
pub(super) async fn hide_administration(request: Request, next: Next) -> Response {
    let template = request.extensions().get::<MatchedPath>();
    let right = template.map(|template| rights::of(request.method(), template.as_str()));
    match right {
        Some(Right::Has(Scope::Admin, _)) => no_such_route(request.uri().clone()).await,
        _ => next.run(request).await,
    }
}

/// How a request proves who sent it.
enum Proof {
    /// Nobody asks.
    NotAsked,
    Missing,
    Wrong(&'static str),
    /// A key or a token.
    Bearer(String),
    Ticket(String),
}

/// The layer.
pub(super) async fn guard(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let template = parts.extensions.get::<MatchedPath>().cloned();
    let template = template.as_ref().map_or("", MatchedPath::as_str);
    if PROBES.contains(&template) {
        return next.run(Request::from_parts(parts, body)).await;
    }
    let right = guard.right(&parts.method, template);
    let proof = proof(&parts, right, template);
    let (left, proved) = match guard.prove_and_count(&parts, proof).await {
        Ok(counted) => counted,
        Err(refusal) => {
            // The next request of a connection is read once this one is answered, so whoever goes on regardless asks ten times a second
            // over each, and not as often as all processors can refuse.
            sleep(REFUSED_AFTER).await;
            return *refusal;
        }
    };
    let mut response = match proved.and_then(|caller| permitted(right, caller)) {
        Ok(sender) => {
            parts.extensions.insert(sender);
            next.run(Request::from_parts(parts, body)).await
        }
        Err(refusal) => *refusal,
    };
    if let Some((rates, left)) = guard.rates.as_ref().zip(left) {
        rates.tell(left, &mut response);
    }
    response
}

impl Guard {
    /// What the route asks for of whoever calls it; `Everybody` too where nobody has to prove who they are.
    fn right(&self, method: &Method, template: &str) -> Right {
        let is_open =
            template.is_empty() || self.door == Door::Admin && METRICS.contains(&template);
        if self.access.is_none() || is_open {
            Right::Everybody
        } else {
            rights::of(method, template)
        }
    }

    /// Who sent a request, as far as they were asked.
    async fn prove(&self, proof: Proof) -> Result<Option<Caller>, Box<Response>> {
        let Some(access) = &self.access else {
            return Ok(None);
        };
        let proved = match proof {
            Proof::NotAsked => return Ok(None),
            Proof::Missing => return Err(unauthorized(None).into()),
            Proof::Wrong(why) => return Err(problem(StatusCode::BAD_REQUEST, why).into()),
            Proof::Bearer(credential) => access.caller(&credential).await,
            Proof::Ticket(ticket) => access.bearer(&ticket).await,
        };
        proved.map(Some).map_err(|denied| {
            let refusal = match denied {
                Denied::Unavailable | Denied::Token(TokenError::NoKeys) => {
                    let detail = "Who you are cannot be found out now";
                    unavailable(Cause("access"), detail)
                }
                denied => unauthorized(Some(&denied)),
            };
            refusal.into()
        })
    }

    /// Who sent a request, and what they have left, or the answer to one that asks too often.
    async fn prove_and_count(
        &self,
        parts: &Parts,
        proof: Proof,
    ) -> Result<(Option<u32>, Result<Option<Caller>, Box<Response>>), Box<Response>> {
        // A ticket is looked up in the database and used up by it: who brings one is counted first, by where they come from.
        if matches!(proof, Proof::Ticket(_)) {
            let left = self.count(parts, None)?;
            return Ok((left, self.prove(proof).await));
        }
        let proved = self.prove(proof).await;
        let caller = proved.as_ref().ok().and_then(Option::as_ref);
        Ok((self.count(parts, caller)?, proved))
    }

    /// Counts a request; what its sender has left, or the answer to one that asks too often.
    fn count(&self, parts: &Parts, caller: Option<&Caller>) -> Result<Option<u32>, Box<Response>> {
        let Some(rates) = &self.rates else {
            return Ok(None);
        };
        let asker = match caller {
            Some(caller) => Asker::Principal(Arc::clone(&caller.principal.name)),
            None => rates.network(parts.extensions.get().copied(), &parts.headers),
        };
        let left = rates.count(&asker);
        left.map(Some).ok_or_else(|| rates.refusal().into())
    }
}

fn proof(parts: &Parts, right: Right, template: &str) -> Proof {
    if right == Right::Everybody {
        return Proof::NotAsked;
    }
    match (bearer(&parts.headers), ticket(parts, template)) {
        (Ok(Some(credential)), _) => Proof::Bearer(credential),
        (Ok(None), Some(ticket)) => Proof::Ticket(ticket),
        (Ok(None), None) => Proof::Missing,
        (Err(why), _) => Proof::Wrong(why),
    }
}

/// Whoever proved to be somebody, if they may do what the route asks for.
fn permitted(right: Right, caller: Option<Caller>) -> Result<Sender, Box<Response>> {
    if let (Right::Has(scope, over), Some(caller)) = (right, &caller) {
        let principal = &caller.principal;
        if !principal.may(scope) {
            return Err(insufficient(scope).into());
        }
        if over == Over::All && principal.reach != Reach::All {
            return Err(problem(StatusCode::FORBIDDEN, NOT_ALL_YOURS).into());
        }
    }
    Ok(Sender(caller))
}

/// The key or token that a request carries (RFC 6750, 2.1).
fn bearer(headers: &HeaderMap) -> Result<Option<String>, &'static str> {
    const WRONG: &str = "Authorization must be Bearer and one key or token, given once";
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let (scheme, credential) = value
        .to_str()
        .ok()
        .and_then(|text| text.trim().split_once(' '))
        .ok_or(WRONG)?;
    let credential = credential.trim();
    let is_one = scheme.eq_ignore_ascii_case("bearer") && !credential.is_empty();
    if is_one && values.next().is_none() {
        Ok(Some(credential.to_owned()))
    } else {
        Err(WRONG)
    }
}

/// The ticket in the query of a live connection: a browser sends no header of its own there.
fn ticket(parts: &Parts, template: &str) -> Option<String> {
    let query = parts.uri.query().filter(|_| LIVE.contains(&template))?;
    let mut pairs = query.split('&');
    let ticket = pairs.find_map(|pair| pair.strip_prefix("ticket="))?;
    Some(ticket.to_owned())
}

/// RFC 6750, 3.
fn unauthorized(denied: Option<&Denied>) -> Response {
    let (detail, challenge) = match denied {
        None => (NO_CREDENTIAL.to_owned(), "Bearer".to_owned()),
        Some(denied) => {
            let detail = denied.to_string();
            let challenge =
                format!("Bearer error=\"invalid_token\", error_description=\"{detail}\"");
            (detail, challenge)
        }
    };
    challenged(problem(StatusCode::UNAUTHORIZED, &detail), &challenge)
}

fn insufficient(scope: Scope) -> Response {
    let scope = scope.as_str();
    let response = problem(
        StatusCode::FORBIDDEN,
        &format!("The scope {scope} is needed"),
    );
    let challenge = format!("Bearer error=\"insufficient_scope\", scope=\"{scope}\"");
    challenged(response, &challenge)
}

fn challenged(mut response: Response, challenge: &str) -> Response {
    if let Ok(challenge) = HeaderValue::from_str(challenge) {
        let headers = response.headers_mut();
        headers.insert(header::WWW_AUTHENTICATE, challenge);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_is_given_once_and_as_bearer() {
        let of = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::AUTHORIZATION, value.parse().unwrap());
            }
            bearer(&headers)
        };
        assert_eq!(of(&[]), Ok(None));
        assert_eq!(of(&["Bearer abc"]), Ok(Some("abc".to_owned())));
        assert_eq!(of(&["bearer  abc "]), Ok(Some("abc".to_owned())));
        for wrong in [
            &["Basic abc"][..],
            &["Bearer"],
            &["abc"],
            &["Bearer a", "Bearer b"],
        ] {
            assert!(of(wrong).is_err(), "{wrong:?}");
        }
    }
}
