//! Reads of levels, each judged by the account.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};

use super::{
    client::{Answer, Call, Client},
    invariants::Invariant,
    operations::Operation,
    oracle::{Key, Told},
    run::Run,
};

fn told(body: &Value) -> Option<Told> {
    Some(Told {
        on_hand: body["on_hand"].as_i64()?,
        reserved: body["reserved"].as_i64()?,
        revision: body["revision"].as_i64()?,
    })
}

/// Judges one level of an answer.
fn judge(run: &Run, key: &Key, body: &Value, answer: &Answer) -> Option<Told> {
    let told = told(body);
    let Some(told) = told else {
        let why = || format!("{key}: {body} is no level");
        run.oracle.findings.broken(Invariant::NeverBelowZero, why());
        return None;
    };
    let quantity = body["quantity"].as_i64();
    let available = body["available"].as_i64();
    let left = told.on_hand.saturating_sub(told.reserved).max(0);
    let is_right = quantity == Some(told.on_hand.max(0)) && available == Some(left);
    run.oracle
        .findings
        .look(Invariant::NeverBelowZero, is_right, || {
            format!("{key}: {quantity:?} shown, {available:?} available of {told}")
        });
    run.oracle.judge(key, told, answer.sent, answer.at);
    Some(told)
}

fn call(key: &Key) -> Call<'static> {
    let path = format!("/api/warehouses/{}/products/{}", key.warehouse, key.product);
    Call::new(Operation::GetLevel, path)
}

/// Asks for one.
pub(super) async fn look(run: &Run, client: &mut Client, due: Duration, key: &Key) -> Option<Told> {
    let answer = client.ask(due, call(key)).await?;
    judge(run, key, &answer.json(), &answer)
}

/// Asks for several at once, all as of one commit; they come in the order they were asked for.
pub(super) async fn query(
    run: &Run,
    client: &mut Client,
    due: Duration,
    keys: &[Key],
) -> Option<(Vec<Told>, Answer)> {
    let named: Vec<_> = keys
        .iter()
        .map(|key| json!({"warehouse": key.warehouse, "product": &*key.product}))
        .collect();
    let call = Call::new(Operation::QueryLevels, "/api/stock/query").body(json!({ "keys": named }));
    let answer = client.ask(due, call).await?;
    let body = answer.json();
    let levels = body["levels"].as_array()?;
    let judged = keys.iter().zip(levels);
    let told: Option<Vec<Told>> = judged
        .map(|(key, level)| judge(run, key, level, &answer))
        .collect();
    told.filter(|told| told.len() == keys.len())
        .map(|told| (told, answer))
}

/// Asks for a level as of the version of a change of one's own, and compares.
pub(super) async fn sees_own_write(
    run: &Arc<Run>,
    client: &mut Client,
    key: &Key,
    change: &Answer,
) {
    let (Some(version), Some(written)) = (&change.version, told(&change.json())) else {
        run.oracle.findings.broken(
            Invariant::OwnWritesSeen,
            format!("{key}: the change has no version or no level"),
        );
        return;
    };
    run.oracle.saw(key, written.revision, change.at);
    let call = Call {
        min_version: Some(version),
        ..call(key)
    };
    let Some(answer) = client.ask(run.clock.elapsed(), call).await else {
        return;
    };
    if let Some(read) = judge(run, key, &answer.json(), &answer) {
        let is_seen = read.revision >= written.revision;
        run.oracle
            .findings
            .look(Invariant::OwnWritesSeen, is_seen, || {
                format!("{key}: {read} as of {version}, which wrote {written}")
            });
    }
}
