//! Where requests are handed in: a queue with a bound, and the keys that are under way in this process.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::{mpsc, oneshot};

use super::{Command, CommandError, Once, Reply, replay};
use crate::{
    domain::TraceParent,
    inventory::Inventory,
    store::{StoreError, answers::OnceKey},
    traces::Span,
};

/// Requests that wait to be decided; a further one is refused at once.
const QUEUE_MAX: usize = 10_000;

/// A command that waits for its answer.
pub(in crate::inventory) struct Pending {
    pub(super) command: Command,
    pub(super) reply: oneshot::Sender<Reply>,
    /// By the process's clock.
    pub(super) handed_in_at: Duration,
    /// Held as long as the command is under way.
    under_way: Option<UnderWay>,
    /// From being handed in to being answered, if that is recorded.
    span: Option<Box<Span>>,
}

impl Pending {
    /// Where its transaction belongs, if that is recorded.
    pub(super) fn cause(&self) -> Option<TraceParent> {
        self.span.as_ref()?.place()
    }

    /// It was decided in this transaction.
    pub(super) fn decided_in(&mut self, transaction: Option<TraceParent>) {
        if let Some((span, transaction)) = self.span.as_mut().zip(transaction) {
            span.link(transaction);
        }
    }

    /// Its key is free before anybody can know of the answer.
    pub(super) fn answer(self, answer: Reply) {
        drop((self.under_way, self.span));
        // Nobody may wait for it any more.
        drop(self.reply.send(answer));
    }
}

/// The way to the decider.
#[derive(Debug)]
pub(in crate::inventory) struct Desk {
    queue: mpsc::Sender<Pending>,
    put_off: mpsc::WeakSender<Pending>,
    keys: Arc<Mutex<HashSet<OnceKey>>>,
}

/// What comes to the desk, and what has to wait for levels that somebody else holds.
pub(in crate::inventory) struct Queues {
    pub(super) handed_in: mpsc::Receiver<Pending>,
    pub(super) put_off: mpsc::Sender<Pending>,
    pub(super) held_up: mpsc::Receiver<Pending>,
}

/// A key under way in this process.
pub(in crate::inventory) struct UnderWay {
    keys: Arc<Mutex<HashSet<OnceKey>>>,
    key: OnceKey,
}

impl UnderWay {
    fn begin(keys: &Arc<Mutex<HashSet<OnceKey>>>, key: &OnceKey) -> Result<Self, CommandError> {
        let is_new = keys
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key.clone());
        is_new
            .then(|| Self {
                keys: Arc::clone(keys),
                key: key.clone(),
            })
            .ok_or(CommandError::InProgress)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        keys.remove(&self.key);
    }
}

impl Desk {
    pub(in crate::inventory) fn new() -> (Self, Queues) {
        let (queue, handed_in) = mpsc::channel(QUEUE_MAX);
        let (put_off, held_up) = mpsc::channel(QUEUE_MAX);
        let desk = Self {
            queue,
            put_off: put_off.downgrade(),
            keys: Arc::default(),
        };
        let queues = Queues {
            handed_in,
            put_off,
            held_up,
        };
        (desk, queues)
    }

    /// Requests that wait, in the longer queue, and the most that may.
    pub(in crate::inventory) fn waiting(&self) -> (usize, usize) {
        let length = |queue: &mpsc::Sender<Pending>| {
            let most = queue.max_capacity();
            most.saturating_sub(queue.capacity())
        };
        let held_up = self.put_off.upgrade().map_or(0, |queue| length(&queue));
        (length(&self.queue).max(held_up), self.queue.max_capacity())
    }

    /// Takes a key for as long as its request is under way in this process.
    pub(in crate::inventory) fn begin(&self, key: &OnceKey) -> Result<UnderWay, CommandError> {
        UnderWay::begin(&self.keys, key)
    }
}

impl Inventory {
    /// Has a request decided. Dropping this future does not take it back.
    pub async fn decide(&self, command: Command) -> Reply {
        let once = command.once.as_ref();
        let under_way = once.map(|once| self.desk.begin(&once.key));
        let (reply, answer) = oneshot::channel();
        let pending = Pending {
            under_way: under_way.transpose()?,
            command,
            reply,
            handed_in_at: self.clock.elapsed(),
            span: self.traces.decision(self.traces.cause()).map(Box::new),
        };
        self.desk
            .queue
            .try_send(pending)
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => CommandError::Busy,
                mpsc::error::TrySendError::Closed(_) => CommandError::Stopping,
            })?;
        let answer = answer.await.unwrap_or(Err(CommandError::Stopping));
        let result = match &answer {
            Ok(answered) if answered.rendered.status < 400 => "done",
            Ok(_) => "refused",
            Err(_) => "failed",
        };
        let commands = &self.metrics.commands_total;
        commands.with_label_values(&[result]).inc();
        answer
    }
}

impl Inventory {
    /// What a request with this key was answered before, if it was this one.
    pub async fn kept_answer(&self, once: &Once) -> Result<Option<Reply>, StoreError> {
        let kept = self.retried(|| self.store.kept_answer(&once.key)).await?;
        Ok(kept.map(|kept| replay(once, kept)))
    }
}
