//! Blocks through worker threads and back into their order.
//!
//! ```text
//!  caller ──submit──▶ jobs ──▶ worker … ──▶ done, by sequence number ──▶ the sink's thread, in order
//!    ▲                                                                      │
//!    └────────────────────────── free slots ◀───────────────────────────────┘
//! ```
//!
//! A [`Slot`] holds a block and room for its compressed form. There is a fixed number of them: they bound the memory, and
//! a caller that finds none free waits. The first error of any thread stops all and comes out of the caller's next call;
//! a panic is such an error.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use crate::write::Error;

/// Buffers of one block.
pub(super) struct Slot {
    /// A whole block's room; the first `used` bytes are the block.
    pub(super) input: Box<[u8]>,
    pub(super) used: usize,
    pub(super) output: Box<[u8]>,
}

impl Slot {
    pub(super) fn block(&self) -> &[u8] {
        &self.input[..self.used]
    }
}

/// What a worker does to blocks.
pub(super) trait Pack<T, P>: Send {
    fn pack(&mut self, slot: &mut Slot, task: &T) -> Result<P, Error>;
}

/// Takes packed blocks in the order in which they were submitted.
pub(super) trait Sink<T, P>: Send {
    fn take(&mut self, slot: &Slot, task: T, packed: P) -> Result<(), Error>;
}

struct Job<T> {
    sequence: u64,
    slot: Slot,
    task: T,
}

struct State<T, P> {
    jobs: VecDeque<Job<T>>,
    done: BTreeMap<u64, (Slot, T, P)>,
    free: Vec<Slot>,
    submitted: u64,
    /// Nothing more will be submitted.
    closed: bool,
    /// All threads are to leave at once.
    stopped: bool,
    failure: Option<Error>,
}

struct Shared<T, P> {
    state: Mutex<State<T, P>>,
    /// Something for the workers, for the sink, for the caller.
    work: Condvar,
    ready: Condvar,
    freed: Condvar,
}

impl<T, P> Shared<T, P> {
    fn lock(&self) -> MutexGuard<'_, State<T, P>> {
        // No invariant spans a panic: nothing panics while it holds the lock, and a panicked thread stops all others.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stop(&self, failure: Option<Error>) {
        let mut state = self.lock();
        if !state.stopped {
            state.stopped = true;
            state.failure = failure;
        }
        drop(state);
        self.work.notify_all();
        self.ready.notify_all();
        self.freed.notify_all();
    }

    fn run_worker(&self, mut packer: Box<dyn Pack<T, P>>) {
        loop {
            let mut state = self.lock();
            let mut job = loop {
                if state.stopped {
                    return;
                }
                match state.jobs.pop_front() {
                    Some(job) => break job,
                    None if state.closed => return,
                    None => state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner),
                }
            };
            drop(state);
            match packer.pack(&mut job.slot, &job.task) {
                Ok(packed) => {
                    self.lock().done.insert(job.sequence, (job.slot, job.task, packed));
                    self.ready.notify_one();
                }
                Err(error) => return self.stop(Some(error)),
            }
        }
    }

    fn run_sink<S: Sink<T, P>>(&self, mut sink: S) -> Option<S> {
        let mut next = 0;
        loop {
            let mut state = self.lock();
            let (slot, task, packed) = loop {
                if state.stopped {
                    return None;
                }
                match state.done.remove(&next) {
                    Some(done) => break done,
                    None if state.closed && state.submitted == next => return Some(sink),
                    None => state = self.ready.wait(state).unwrap_or_else(PoisonError::into_inner),
                }
            };
            drop(state);
            next += 1;
            if let Err(error) = sink.take(&slot, task, packed) {
                self.stop(Some(error));
                return None;
            }
            self.lock().free.push(slot);
            self.freed.notify_one();
        }
    }
}

/// Turns a panic of its thread into an error of the pipeline.
struct Watch<'a, T, P> {
    shared: &'a Shared<T, P>,
    doing: &'static str,
}

impl<T, P> Drop for Watch<'_, T, P> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.shared.stop(Some(Error::Panicked { doing: self.doing }));
        }
    }
}

pub(super) struct Pipeline<T, P, S> {
    shared: Arc<Shared<T, P>>,
    workers: Vec<JoinHandle<()>>,
    sink: Option<JoinHandle<Option<S>>>,
}

impl<T, P, S> Pipeline<T, P, S>
where
    T: Send + 'static,
    P: Send + 'static,
    S: Sink<T, P> + 'static,
{
    /// Starts one thread for each packer and one for the sink.
    pub(super) fn start(packers: Vec<Box<dyn Pack<T, P>>>, sink: S, slots: Vec<Slot>) -> Result<Self, Error> {
        let state = State {
            jobs: VecDeque::new(),
            done: BTreeMap::new(),
            free: slots,
            submitted: 0,
            closed: false,
            stopped: false,
            failure: None,
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            work: Condvar::new(),
            ready: Condvar::new(),
            freed: Condvar::new(),
        });
        // From here on a failed start drops the pipeline, and that ends the threads already started.
        let mut pipeline = Self { shared: shared.clone(), workers: Vec::new(), sink: None };
        for packer in packers {
            let shared = shared.clone();
            let worker = thread::Builder::new().name("squashfs-pack".into()).spawn(move || {
                let _watch = Watch { shared: &shared, doing: "compresses blocks" };
                shared.run_worker(packer);
            });
            pipeline.workers.push(worker.map_err(Error::Spawn)?);
        }
        let sink = thread::Builder::new().name("squashfs-write".into()).spawn(move || {
            let _watch = Watch { shared: &shared, doing: "writes blocks" };
            shared.run_sink(sink)
        });
        pipeline.sink = Some(sink.map_err(Error::Spawn)?);
        Ok(pipeline)
    }

    /// Tells whether all is well, so that a failure comes out before more is read.
    pub(super) fn check(&self) -> Result<(), Error> {
        Self::alive(&mut self.shared.lock())
    }

    fn alive(state: &mut State<T, P>) -> Result<(), Error> {
        match state.stopped {
            true => Err(state.failure.take().unwrap_or(Error::Stopped)),
            false => Ok(()),
        }
    }

    /// An empty slot; waits for one.
    pub(super) fn slot(&self) -> Result<Slot, Error> {
        let mut state = self.shared.lock();
        loop {
            Self::alive(&mut state)?;
            if let Some(mut slot) = state.free.pop() {
                slot.used = 0;
                return Ok(slot);
            }
            state = self.shared.freed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Gives back a slot that was not needed.
    pub(super) fn release(&self, slot: Slot) {
        self.shared.lock().free.push(slot);
    }

    pub(super) fn submit(&self, slot: Slot, task: T) {
        let mut state = self.shared.lock();
        let sequence = state.submitted;
        state.submitted += 1;
        state.jobs.push_back(Job { sequence, slot, task });
        drop(state);
        self.shared.work.notify_one();
    }

    /// Ends all threads without finishing; later calls answer [`Error::Stopped`].
    pub(super) fn stop(&self) {
        self.shared.stop(None);
    }

    /// Waits until everything submitted went through the sink, ends the threads and gives the sink back.
    pub(super) fn finish(mut self) -> Result<S, Error> {
        self.shared.lock().closed = true;
        self.shared.work.notify_all();
        self.shared.ready.notify_all();
        // A panic was already noted by the thread's watch.
        let sink = self.sink.take().and_then(|thread| thread.join().ok().flatten());
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
        match sink {
            Some(sink) => Ok(sink),
            None => Err(self.shared.lock().failure.take().unwrap_or(Error::Stopped)),
        }
    }
}

impl<T, P, S> Drop for Pipeline<T, P, S> {
    fn drop(&mut self) {
        self.shared.stop(None);
        if let Some(sink) = self.sink.take() {
            let _ = sink.join();
        }
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers go through; some make a worker or the sink fail.
    #[derive(Clone, Copy, PartialEq)]
    enum Number {
        Good(u32),
        PackFails,
        PackPanics,
        SinkFails,
        SinkPanics,
    }

    struct Doubler;

    impl Pack<Number, u32> for Doubler {
        fn pack(&mut self, _: &mut Slot, task: &Number) -> Result<u32, Error> {
            match task {
                Number::Good(number) => {
                    // So that blocks overtake each other.
                    (0..number % 5).for_each(|_| thread::yield_now());
                    Ok(number * 2)
                }
                Number::PackFails => Err(Error::TooMany { what: "of these" }),
                Number::PackPanics => panic!("as the test wants it"),
                _ => Ok(0),
            }
        }
    }

    #[derive(Default)]
    struct Taken(Vec<u32>);

    impl Sink<Number, u32> for Taken {
        fn take(&mut self, _: &Slot, task: Number, packed: u32) -> Result<(), Error> {
            match task {
                Number::SinkFails => return Err(Error::TooMany { what: "of those" }),
                Number::SinkPanics => panic!("as the test wants it"),
                _ => self.0.push(packed),
            }
            Ok(())
        }
    }

    fn start(workers: usize) -> Pipeline<Number, u32, Taken> {
        let slot = |_| Slot { input: Box::default(), used: 0, output: Box::default() };
        let packers = (0..workers).map(|_| Box::new(Doubler) as Box<dyn Pack<Number, u32>>).collect();
        Pipeline::start(packers, Taken::default(), (0..4).map(slot).collect()).unwrap()
    }

    #[test]
    fn order_is_kept() {
        for workers in [1, 3, 8] {
            let pipeline = start(workers);
            for number in 0..2000 {
                let slot = pipeline.slot().unwrap();
                pipeline.submit(slot, Number::Good(number));
            }
            let taken = pipeline.finish().unwrap().0;
            assert!(taken.iter().copied().eq((0..2000).map(|number| number * 2)), "{workers} workers");
        }
    }

    #[test]
    fn failures_come_out_of_the_next_call_and_end_all_threads() {
        for (bad, expect) in [
            (Number::PackFails, "the image has more than 2^32 of these"),
            (Number::PackPanics, "a thread that compresses blocks panicked; this is a bug of siforge"),
            (Number::SinkFails, "the image has more than 2^32 of those"),
            (Number::SinkPanics, "a thread that writes blocks panicked; this is a bug of siforge"),
        ] {
            let pipeline = start(3);
            let shared = Arc::downgrade(&pipeline.shared);
            let slot = pipeline.slot().unwrap();
            pipeline.submit(slot, bad);
            // Slots of a failed pipeline do not come back, so that this ends.
            let error = loop {
                match pipeline.slot() {
                    Ok(slot) => pipeline.submit(slot, Number::Good(1)),
                    Err(error) => break error,
                }
            };
            assert_eq!(error.to_string(), expect);
            assert!(matches!(pipeline.check(), Err(Error::Stopped)));
            assert!(matches!(pipeline.finish(), Err(Error::Stopped)));
            assert_eq!(shared.strong_count(), 0, "no thread is left");
        }
    }

    #[test]
    fn finish_tells_a_failure_too() {
        for bad in [Number::PackFails, Number::PackPanics, Number::SinkFails, Number::SinkPanics] {
            let pipeline = start(2);
            let slot = pipeline.slot().unwrap();
            pipeline.submit(slot, bad);
            assert!(!matches!(pipeline.finish(), Ok(_) | Err(Error::Stopped)));
        }
    }

    #[test]
    fn a_dropped_pipeline_leaves_no_thread() {
        let pipeline = start(4);
        let shared = Arc::downgrade(&pipeline.shared);
        for number in 0..10 {
            let slot = pipeline.slot().unwrap();
            pipeline.submit(slot, Number::Good(number));
        }
        drop(pipeline);
        assert_eq!(shared.strong_count(), 0);
    }
}
