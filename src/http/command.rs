//! What all commands have in common: the body and who sends it, the key under which the answer is kept, and how the answer of the
//! decider becomes a response.

use std::{mem::take, sync::Arc};

use axum::{
    Json,
    body::Body,
    extract::{FromRequest, FromRequestParts, MatchedPath, Request, rejection::BytesRejection},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use uuid::Uuid;
use xxhash_rust::xxh3::Xxh3;

use super::{
    Context,
    actor::Actor,
    answer::set_version,
    body::{StockBody, json as to_json},
    error::{ApiError, PROBLEM_JSON},
    guard::Sender,
    input::{NO_JSON, not_json},
};
use crate::{
    domain::{
        CommandId, ProductId, ReservationId, StockKey,
        command::{Note, Request as Asked},
        decide::{Refusal, Short},
    },
    inventory::decide::{Answered, Command, Decided, Once, Rendered},
    store::{answers::OnceKey, listings::NewProduct},
};

/// Under what the answer is kept.
pub(super) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Longest key, in characters.
const KEY_CHARS_MAX: usize = 255;
/// Whose keys are those of callers that do not say who they are.
const NOBODY: &str = "";

/// A body that may be left out.
pub(super) trait WhenEmpty: Sized {
    /// What an empty body stands for; `None`: it must not be empty.
    fn when_empty() -> Option<Self> {
        None
    }
}

/// A command: its body, who sends it, and under what key.
pub(super) struct Ask<T> {
    pub(super) body: T,
    pub(super) sender: Sender,
    /// What the ledger is to say of who wants it.
    pub(super) actor: Option<Arc<str>>,
    pub(super) once: Option<Once>,
    /// What `If-Match` says.
    pub(super) if_match: Option<Vec<String>>,
}

impl<T: DeserializeOwned + WhenEmpty, S: Send + Sync> FromRequest<S> for Ask<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let key = idempotency_key(request.headers())?;
        let kept_as = key.map(|key| (key, route(&request), request.uri().path().to_owned()));
        let (mut parts, body) = request.into_parts();
        let Actor(actor) = Actor::from_request_parts(&mut parts, state).await?;
        let Ok(sender) = Sender::from_request_parts(&mut parts, state).await;
        let actor = who(&sender, actor);
        let headers = take(&mut parts.headers);
        let bytes = Bytes::from_request(Request::from_parts(parts, body), state)
            .await
            .map_err(too_large)?;
        let once = kept_as.map(|(key, route, path)| Once {
            key: OnceKey {
                principal: principal(&sender, actor.as_ref()),
                route,
                key,
            },
            fingerprint: fingerprint(&path, &bytes),
        });
        Ok(Self {
            body: parse(&headers, &bytes)?,
            sender,
            actor,
            once,
            if_match: if_match(&headers)?,
        })
    }
}

/// Who wants it: who proved to be, and for whom they say it is.
fn who(sender: &Sender, said: Option<String>) -> Option<Arc<str>> {
    match (sender.name(), said) {
        (None, said) => said.map(Arc::from),
        (Some(name), None) => Some(Arc::clone(name)),
        (Some(name), Some(said)) => Some(format!("{name} ({said})").into()),
    }
}

/// Whose keys these are: nobody else gets the answers that are kept under them.
fn principal(sender: &Sender, actor: Option<&Arc<str>>) -> Arc<str> {
    let name = sender.name().or(actor);
    name.map_or_else(|| NOBODY.into(), Arc::clone)
}

/// Method and template of the path.
fn route(request: &Request) -> Arc<str> {
    let template = request.extensions().get::<MatchedPath>();
    let template = template.map_or("", MatchedPath::as_str);
    format!("{} {template}", request.method()).into()
}

#[expect(clippy::needless_pass_by_value, reason = "made for map_err")]
fn too_large(rejection: BytesRejection) -> ApiError {
    if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
        ApiError::TooLarge
    } else {
        ApiError::BadRequest("The body cannot be read")
    }
}

/// The key under which the answer is kept, if there is one.
fn idempotency_key(headers: &HeaderMap) -> Result<Option<Arc<str>>, ApiError> {
    const INVALID: ApiError = ApiError::BadRequest(
        "Idempotency-Key must be 1 to 255 printable ASCII characters, given once",
    );
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let text = value.to_str().map(str::trim).unwrap_or_default();
    let is_text = !text.is_empty()
        && text.len() <= KEY_CHARS_MAX
        && text.bytes().all(|b| b == b' ' || b.is_ascii_graphic());
    if is_text && values.next().is_none() {
        Ok(Some(text.into()))
    } else {
        Err(INVALID)
    }
}

/// RFC 9110, 13.1.1: tags, or `*` for whatever is there.
fn if_match(headers: &HeaderMap) -> Result<Option<Vec<String>>, ApiError> {
    let values: Vec<&HeaderValue> = headers.get_all(header::IF_MATCH).iter().collect();
    if values.is_empty() {
        return Ok(None);
    }
    let texts = values.into_iter().map(HeaderValue::to_str);
    let texts: Result<Vec<&str>, _> = texts.collect();
    let texts = texts.map_err(|_| ApiError::BadRequest("If-Match must hold tags"))?;
    let tags = texts.into_iter().flat_map(|text| text.split(','));
    // One that was compressed on its way is marked as weak, and stands for the same level.
    let tag = |tag: &str| {
        let tag = tag.trim();
        tag.strip_prefix("W/").unwrap_or(tag).to_owned()
    };
    Ok(Some(tags.map(tag).collect()))
}

/// The same request has the same.
fn fingerprint(path: &str, body: &[u8]) -> Uuid {
    let mut hash = Xxh3::new();
    hash.update(path.as_bytes());
    hash.update(b"\0");
    hash.update(body);
    Uuid::from_u128(hash.digest128())
}

fn parse<T: DeserializeOwned + WhenEmpty>(
    headers: &HeaderMap,
    bytes: &[u8],
) -> Result<T, ApiError> {
    if bytes.is_empty() {
        return T::when_empty().ok_or(ApiError::BadRequest(NO_JSON));
    }
    let content_type = headers.get(header::CONTENT_TYPE);
    let content_type = content_type.and_then(|value| value.to_str().ok());
    let kind = content_type.unwrap_or_default().split(';').next();
    let kind = kind.unwrap_or_default().trim().to_ascii_lowercase();
    if kind != "application/json" && !(kind.starts_with("application/") && kind.ends_with("+json"))
    {
        return Err(ApiError::NotJson);
    }
    Json::from_bytes(bytes)
        .map(|Json(body)| body)
        .map_err(not_json)
}

impl<T> Ask<T> {
    /// What is to be kept of who wants it and why.
    pub(super) fn note(
        &self,
        reason: Option<&str>,
        reference: Option<&str>,
    ) -> Result<Note, ApiError> {
        note(self.actor.as_ref(), reason, reference)
    }
}

/// The same, apart from a request.
pub(super) fn note(
    actor: Option<&Arc<str>>,
    reason: Option<&str>,
    reference: Option<&str>,
) -> Result<Note, ApiError> {
    let text = |text: Option<&str>, max: usize, what: &str| match text {
        None | Some("") => Ok(None),
        Some(text) if text.chars().count() > max || text.contains('\0') => {
            Err(ApiError::unprocessable(format!(
                "{what} has at most {max} characters, none of them NUL"
            )))
        }
        Some(text) => Ok(Some(Arc::from(text))),
    };
    Ok(Note {
        actor: actor.cloned(),
        reason: text(reason, Note::REASON_CHARS_MAX, "a reason")?,
        reference: text(reference, Note::REFERENCE_CHARS_MAX, "a reference")?,
    })
}

/// An id for a command.
pub(super) fn command_id() -> CommandId {
    new_id(CommandId::new)
}

/// An id for a reservation.
pub(super) fn reservation_id() -> ReservationId {
    new_id(ReservationId::new)
}

/// An id for a product.
pub(super) fn product_id() -> ProductId {
    new_id(ProductId::new)
}

/// An id that begins with the time: what is made together lies together.
fn new_id<T>(make: fn(Uuid) -> Option<T>) -> T {
    loop {
        // It is never nil, for it begins with the time.
        if let Some(id) = make(Uuid::now_v7()) {
            return id;
        }
    }
}

/// What besides the request there is to a command.
#[derive(Default)]
pub(super) struct With {
    pub(super) creates: Option<NewProduct>,
    pub(super) shows: Option<ProductId>,
}

/// Has a request decided.
pub(super) async fn decide(
    context: &Context,
    once: Option<Once>,
    request: Asked,
    with: With,
    render: impl Fn(&Decided<'_>) -> Rendered + Send + Sync + 'static,
) -> Result<Response, ApiError> {
    let command = Command {
        request,
        once,
        creates: with.creates,
        shows: with.shows,
        render: Box::new(render),
    };
    Ok(answer(context.inventory.decide(command).await?))
}

/// The answer to a request; where it names what is not there any more, the one that is kept for it.
pub(super) async fn or_kept(
    context: &Context,
    once: Option<Once>,
    asked: impl Future<Output = Result<Response, ApiError>>,
) -> Result<Response, ApiError> {
    let answered = asked.await;
    let is_refused = match &answered {
        Ok(response) => response.status() == StatusCode::NOT_FOUND,
        Err(error) => matches!(
            error,
            ApiError::NotFound(_)
                | ApiError::Absent(_)
                | ApiError::BadRequest(_)
                | ApiError::Unprocessable(_)
        ),
    };
    let Some(once) = once.filter(|_| is_refused) else {
        return answered;
    };
    match context.inventory.kept_answer(&once).await? {
        Some(kept) => Ok(answer(kept?)),
        None => answered,
    }
}

/// The answer of a command as a response.
pub(super) fn answer(answered: Answered) -> Response {
    let mut response = respond(answered.rendered);
    if let Some(as_of) = answered.as_of {
        set_version(&mut response, as_of);
    }
    response
}

pub(super) fn respond(rendered: Rendered) -> Response {
    let status = StatusCode::from_u16(rendered.status).unwrap_or(StatusCode::OK);
    let mut response = (status, Body::from(rendered.body)).into_response();
    let is_error = status.is_client_error() || status.is_server_error();
    let content_type = if is_error {
        PROBLEM_JSON
    } else {
        HeaderValue::from_static("application/json")
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, content_type);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A document with this status.
pub(super) fn granted(status: StatusCode, body: &impl serde::Serialize) -> Rendered {
    Rendered {
        status: status.as_u16(),
        body: to_json(body),
    }
}

/// A problem document with fields of its own.
pub(super) fn problem(status: StatusCode, detail: &str, more: &Value) -> Rendered {
    let mut document = json!({
        "type": "about:blank",
        "title": status.canonical_reason().unwrap_or("Error"),
        "status": status.as_u16(),
        "detail": detail,
        "error": detail,
    });
    if let (Some(document), Some(more)) = (document.as_object_mut(), more.as_object()) {
        document.extend(more.clone());
    }
    Rendered {
        status: status.as_u16(),
        body: to_json(&document),
    }
}

/// What a kind of problem is named by.
const INSUFFICIENT: &str = "urn:stockyard:problem:insufficient-stock";
pub(super) const INSUFFICIENT_STOCK: &str = "Insufficient stock";

/// A refusal as a problem document.
pub(super) fn refused(refusal: &Refusal, decided: &Decided<'_>, place: Option<usize>) -> Rendered {
    let (status, detail, mut more) = told(refusal, decided);
    if let (Some(place), Some(more)) = (place, more.as_object_mut()) {
        more.insert("index".to_owned(), json!(place));
    }
    problem(status, &detail, &more)
}

/// Status, detail and what else there is to say.
fn told(refusal: &Refusal, decided: &Decided<'_>) -> (StatusCode, String, Value) {
    match refusal {
        Refusal::UnknownProduct(_) => {
            (StatusCode::NOT_FOUND, "Product not found".into(), json!({}))
        }
        Refusal::UnknownWarehouse(_) => (
            StatusCode::NOT_FOUND,
            "Warehouse not found".into(),
            json!({}),
        ),
        Refusal::Short(lines) => {
            let more = json!({
                "type": INSUFFICIENT,
                "title": INSUFFICIENT_STOCK,
                "error": INSUFFICIENT_STOCK,
                "lines": lines.iter().map(line).collect::<Vec<_>>(),
            });
            (StatusCode::CONFLICT, short_detail(lines), more)
        }
        Refusal::NotAsExpected(key) => {
            let current = stock_body(*key, decided);
            let more = json!({ "current": current, "etag": super::body::etag(&to_json(&current)) });
            let detail = "The level is not the one that If-Match names".to_owned();
            (StatusCode::PRECONDITION_FAILED, detail, more)
        }
        Refusal::NoReservation => (
            StatusCode::NOT_FOUND,
            "Reservation not found".into(),
            json!({}),
        ),
        Refusal::Stands(state) => {
            let detail = format!("The reservation is {}", state.as_str());
            (
                StatusCode::CONFLICT,
                detail,
                json!({ "state": state.as_str() }),
            )
        }
        Refusal::TooLarge => {
            let detail = "The level would hold more than can be kept".to_owned();
            (StatusCode::UNPROCESSABLE_ENTITY, detail, json!({}))
        }
        Refusal::SkuTaken => {
            let detail = "Another product has this sku".to_owned();
            (StatusCode::CONFLICT, detail, json!({}))
        }
    }
}

fn line(short: &Short) -> Value {
    json!({
        "product_id": short.product.uuid(),
        "warehouse_id": short.warehouse.map(crate::domain::WarehouseId::uuid),
        "requested": short.requested,
        "available": short.available,
    })
}

/// What orders say as well.
pub(super) fn short_detail(lines: &[Short]) -> String {
    let short: Vec<String> = lines
        .iter()
        .map(|line| {
            format!(
                "Available: {}, Requested: {}",
                line.available, line.requested
            )
        })
        .collect();
    format!("{INSUFFICIENT_STOCK}. {}", short.join("; "))
}

/// A level as the commit leaves it.
pub(super) fn stock_body(key: StockKey, decided: &Decided<'_>) -> StockBody {
    let level = decided.book.level(key);
    StockBody::new(key.warehouse.uuid(), key.product.uuid(), &level)
}
