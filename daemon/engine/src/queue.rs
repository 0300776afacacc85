//! Messages for a client that may read slowly.
//!
//! Whoever tells something must not wait: it may hold locks, or have other work. So the queue takes everything, and says
//! when there is much in it; who has a source that can wait (a container's pipe) asks for [`Filler::room`].

use std::sync::Arc;

use tokio::sync::{mpsc, watch};

/// As much waits before sources are held up, in the unit of [`Weigh::weight`].
const FULL: usize = 1 << 20;
/// What a message costs beside its text.
pub(crate) const OVERHEAD: usize = 256;

/// About how many bytes of memory a message has.
pub(crate) trait Weigh {
    fn weight(&self) -> usize;
}

/// The end where messages are put in.
#[derive(Debug)]
pub(crate) struct Filler<T> {
    messages: mpsc::UnboundedSender<T>,
    waiting: Arc<watch::Sender<usize>>,
}

/// The end where they come out.
#[derive(Debug)]
pub(crate) struct Drain<T> {
    messages: mpsc::UnboundedReceiver<T>,
    waiting: Arc<watch::Sender<usize>>,
}

/// A new queue.
pub(crate) fn queue<T>() -> (Filler<T>, Drain<T>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let waiting = Arc::new(watch::Sender::new(0));
    (Filler { messages: sender, waiting: Arc::clone(&waiting) }, Drain { messages: receiver, waiting })
}

impl<T> Clone for Filler<T> {
    fn clone(&self) -> Self {
        Self { messages: self.messages.clone(), waiting: Arc::clone(&self.waiting) }
    }
}

impl<T: Weigh> Filler<T> {
    /// Puts a message in. That nobody takes them any more is told otherwise.
    pub(crate) fn put(&self, message: T) {
        let weight = message.weight();
        self.waiting.send_modify(|waiting| *waiting = waiting.saturating_add(weight));
        self.messages.send(message).ok();
    }

    /// Done when there is not too much in it, or nobody takes anything out any more.
    pub(crate) async fn room(&self) {
        let mut waiting = self.waiting.subscribe();
        tokio::select! {
            _ = waiting.wait_for(|waiting| *waiting < FULL) => {}
            () = self.messages.closed() => {}
        }
    }
}

impl<T: Weigh> Drain<T> {
    /// The next message; none when all fillers are gone.
    pub(crate) async fn next(&mut self) -> Option<T> {
        let message = self.messages.recv().await?;
        self.taken(&message);
        Some(message)
    }

    /// The next messages, about as many as go into `weight`; none when all fillers are gone.
    pub(crate) async fn some(&mut self, weight: usize) -> Vec<T> {
        let mut all: Vec<T> = self.next().await.into_iter().collect();
        let mut sum: usize = all.iter().map(Weigh::weight).sum();
        while sum < weight
            && let Ok(message) = self.messages.try_recv()
        {
            self.taken(&message);
            sum += message.weight();
            all.push(message);
        }
        all
    }

    fn taken(&self, message: &T) {
        let weight = message.weight();
        self.waiting.send_modify(|waiting| *waiting = waiting.saturating_sub(weight));
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    impl Weigh for usize {
        fn weight(&self) -> usize {
            *self
        }
    }

    #[tokio::test]
    async fn a_full_queue_holds_its_source_up() {
        let (filler, mut drain) = queue();
        filler.put(FULL - 1);
        assert!(filler.room().now_or_never().is_some());
        filler.put(1);
        assert!(filler.room().now_or_never().is_none(), "full");
        assert_eq!(drain.next().await, Some(FULL - 1));
        assert!(filler.room().now_or_never().is_some());
        filler.put(FULL);
        filler.put(7);
        assert_eq!(drain.some(FULL).await, [1, FULL]);
        filler.put(FULL);
        drop(drain);
        assert!(filler.room().now_or_never().is_some(), "nobody reads: nobody waits");
    }
}
