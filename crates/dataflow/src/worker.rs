//! The loop on timely: one dataflow per worker, built once.
//!
//! One operator's output is its own input, one level later (timestamp ([`Step`]), summary (0, 1)).
//! Only worker 0 holds the capability to begin epochs: it takes them from the conductor and deals
//! their packets out at (epoch, 0); every worker, itself included, has them at (epoch, 1). A step is
//! complete once timely's frontier has passed the level before it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded};
use parking_lot::Mutex;
use tidemill_delta::Epoch;
use tidemill_env::Env;
use timely::communication::{Config as Communication, Push};
use timely::container::NoopBuilder;
use timely::dataflow::channels::Message;
use timely::dataflow::channels::pact::DistributorPact;
use timely::dataflow::channels::pushers::exchange::Distributor;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::progress::{Antichain, Stamp};
use timely::scheduling::SyncActivator;
use timely::worker::Worker;
use timely::{Config, WorkerConfig};

use crate::Memory;
use crate::frame::{Begin, Frame, Packet};
use crate::hub::{Deploy, Hub, Output, Place, StateSizes};
use crate::time::Step;

/// A hub activation ends after about this long, so that a long one does not delay the others.
const ACTIVATION_NANOS: u64 = 500_000;

/// The size of the state is looked at about this often.
const MEASURE_NANOS: u64 = 200_000_000;

/// One epoch for worker 0 to deal out.
#[derive(Debug)]
pub struct Feed {
    /// Which; one more than the last.
    pub epoch: Epoch,
    /// For every worker; `None` when nothing but rows begins here.
    pub begin: Option<Arc<Begin>>,
    /// Packets by worker.
    pub packets: Vec<(usize, Packet)>,
}

/// How the workers run.
#[derive(Clone)]
pub struct Cluster {
    /// Threads in this process.
    pub workers: usize,
    /// This process's place in `hosts`.
    pub index: usize,
    /// The addresses of all processes; with fewer than two there is no network.
    pub hosts: Vec<String>,
    /// What operators of this process may take; what does not fit goes to disk. `None`: whatever they need.
    pub memory: Option<Memory>,
}

/// The conductor's end of the loop; only in process 0.
pub struct Loop {
    /// `None` once it ends.
    feed: Option<Sender<Feed>>,
    activator: Arc<Mutex<Option<SyncActivator>>>,
    /// All epochs below are done on all workers.
    done: Arc<AtomicU64>,
    /// All workers of all processes.
    pub workers: usize,
}

impl Loop {
    /// Begins an epoch.
    pub fn begin(&self, feed: Feed) {
        // A closed loop means that the workers are gone, and with them the process, soon.
        let _ = self.feed.as_ref().map(|to| to.send(feed));
        self.wake();
    }

    /// Wakes worker 0.
    fn wake(&self) {
        if let Some(activator) = self.activator.lock().as_ref() {
            let _ = activator.activate();
        }
    }

    /// All epochs below this one are done on all workers.
    pub fn done(&self) -> Epoch {
        self.done.load(Ordering::Acquire)
    }
}

impl Drop for Loop {
    /// Closes the feed, and wakes worker 0 to see it: the workers finish what is in flight, and end.
    fn drop(&mut self) {
        self.feed = None;
        self.wake();
    }
}

/// What a process's workers share.
#[derive(Clone)]
struct Shared {
    feed: Receiver<Feed>,
    activator: Arc<Mutex<Option<SyncActivator>>>,
    done: Arc<AtomicU64>,
    outputs: Sender<Output>,
    deploy: Deploy,
    sizes: StateSizes,
    on_done: Arc<dyn Fn() + Send + Sync>,
    memory: Option<Memory>,
    env: Env,
    local: usize,
}

/// The threads; ends when they do.
pub type Guards = timely::communication::WorkerGuards<()>;

/// Starts the workers. `on_done` is called (on a worker's thread) whenever [`Loop::done`] moves.
pub fn start(
    cluster: &Cluster,
    env: Env,
    outputs: Sender<Output>,
    deploy: Deploy,
    sizes: StateSizes,
    on_done: Arc<dyn Fn() + Send + Sync>,
) -> Result<(Loop, Guards), String> {
    let (feed, receiver) = bounded(64);
    let activator = Arc::new(Mutex::new(None));
    let done = Arc::new(AtomicU64::new(0));
    let shared = Shared {
        feed: receiver,
        activator: activator.clone(),
        done: done.clone(),
        outputs,
        deploy,
        sizes,
        on_done,
        memory: cluster.memory.clone(),
        env,
        local: cluster.workers,
    };
    let communication = match (cluster.hosts.len(), cluster.workers) {
        (0 | 1, 1) => Communication::Thread,
        (0 | 1, workers) => Communication::Process(workers),
        (_, threads) => Communication::Cluster {
            threads,
            process: cluster.index,
            addresses: cluster.hosts.clone(),
            report: false,
            zerocopy: false,
        },
    };
    // Spinning helps only where every worker has a core of its own; here it takes time from the doors.
    let config = Config { communication, worker: WorkerConfig::default().idle_spin(Duration::ZERO) };
    let guards = timely::execute(config, move |worker| run_worker(worker, &shared))?;
    let workers = cluster.workers * cluster.hosts.len().max(1);
    Ok((Loop { feed: Some(feed), activator, done, workers }, guards))
}

struct ByTarget;

impl Distributor<Frame> for ByTarget {
    fn partition<T: Clone, P: Push<Message<T, Frame>>>(
        &mut self,
        frame: &mut Frame,
        stamp: &Stamp<T>,
        pushers: &mut [P],
    ) {
        let target = frame.target;
        Message::push_at(frame, stamp.clone(), &mut pushers[target]);
    }

    fn flush<T: Clone, P: Push<Message<T, Frame>>>(&mut self, _stamp: &Stamp<T>, _pushers: &mut [P]) {}
}

fn run_worker(worker: &mut Worker, shared: &Shared) {
    let place = Place { worker: worker.index(), workers: worker.peers(), serves: worker.index() < shared.local };
    let shared = shared.clone();
    worker.dataflow::<Step, _, _>(|scope| {
        let mut builder = OperatorBuilder::new("hub".into(), scope);
        let (output, own) = builder.new_output_connection::<Frame, _>(Vec::<(usize, Antichain<Step>)>::new());
        let mut output = OutputBuilder::<Step, NoopBuilder<Frame>>::from(output);
        let next_level = Antichain::from_elem(Step::new(0, 1));
        let pact = DistributorPact(|_peers: usize| ByTarget);
        let mut input = builder.new_input_connection(own, pact, vec![(0, next_level)]);
        let address = builder.operator_info().address;
        let again = scope.activator_for(address.clone());
        if place.worker == 0 {
            *shared.activator.lock() = Some(scope.worker().sync_activator_for(address.to_vec()));
        }
        builder.build(move |mut capabilities| {
            let source = if place.worker == 0 { capabilities.pop() } else { None };
            let shown = (shared.outputs.clone(), shared.deploy.clone(), shared.sizes.clone());
            let hub = Hub::new(place, shown.0, shown.1, shown.2, shared.memory.clone());
            let mut turn = Turn { hub, source, held: BTreeMap::new(), shared, measure_at: 0, done: 0 };
            move |frontiers| {
                input.for_each(|capability, frame| {
                    let sent = *capability.stamp().expect_singleton();
                    let at = Step::new(sent.epoch, sent.level + 1);
                    let frame = std::mem::take(frame);
                    let held = capability.delayed(&at, 0);
                    frame.packets.into_iter().for_each(|p| turn.hub.receive(at, p));
                    turn.hold(&held);
                });
                let mut output = output.activate();
                turn.take_feeds(|capability, mut frame| {
                    output.session_with_builder(capability).give_container(&mut frame);
                });
                let frontier = frontiers[0].frontier().to_owned();
                let unfinished = turn.run_ready(&frontier, |capability, mut frame| {
                    output.session_with_builder(capability).give_container(&mut frame);
                });
                if unfinished {
                    again.activate();
                }
                turn.finish(&frontier);
            }
        });
    });
}

/// The state of the hub operator between activations.
struct Turn {
    hub: Hub,
    /// The right to begin epochs; worker 0's, until the conductor stops.
    source: Option<Capability<Step>>,
    /// The right to send at the steps that have work.
    held: BTreeMap<Step, Capability<Step>>,
    shared: Shared,
    /// When to look at the size of the state again.
    measure_at: u64,
    done: Epoch,
}

impl Turn {
    /// Holds capabilities for the steps that the hub wants, made from one at or before them.
    fn hold(&mut self, from: &Capability<Step>) {
        for step in self.hub.take_wanted().into_iter().filter(|s| self.hub.has_work(s)) {
            self.held.entry(step).or_insert_with(|| from.delayed(&step));
        }
    }

    /// Deals out the epochs that the conductor has begun.
    fn take_feeds(&mut self, mut send: impl FnMut(&Capability<Step>, Frame)) {
        while let Some(source) = self.source.take() {
            match self.shared.feed.try_recv() {
                Ok(feed) => {
                    let mut source = source;
                    source.downgrade(&Step::new(feed.epoch, 0));
                    self.deal(&source, feed, &mut send);
                    source.downgrade(&Step::new(source.time().epoch + 1, 0));
                    self.source = Some(source);
                }
                Err(TryRecvError::Empty) => {
                    self.source = Some(source);
                    break;
                }
                // The conductor has stopped: without a source all workers finish.
                Err(TryRecvError::Disconnected) => {}
            }
        }
    }

    fn deal(&mut self, source: &Capability<Step>, feed: Feed, send: &mut impl FnMut(&Capability<Step>, Frame)) {
        let here = Step::new(feed.epoch, 1);
        let mut frames: BTreeMap<usize, Vec<Packet>> = BTreeMap::new();
        if let Some(begin) = feed.begin {
            for worker in 0..self.hub.workers() {
                frames.entry(worker).or_default().push(Packet::Begin(begin.clone()));
            }
        }
        for (worker, packet) in feed.packets {
            frames.entry(worker).or_default().push(packet);
        }
        for (worker, packets) in frames {
            if worker == 0 {
                packets.into_iter().for_each(|p| self.hub.receive(here, p));
            } else {
                send(source, Frame::new(worker, packets));
            }
        }
        self.hold(source);
    }

    /// Runs the steps whose input is complete, eldest first, for a bounded time. Returns whether
    /// some are left over.
    fn run_ready(&mut self, frontier: &Antichain<Step>, mut send: impl FnMut(&Capability<Step>, Frame)) -> bool {
        let start = self.shared.env.monotonic_nanos();
        let env = self.shared.env.clone();
        let enough = || env.monotonic_nanos() - start > ACTIVATION_NANOS;
        loop {
            let complete = |step: &Step| {
                let before = Step::new(step.epoch, step.level.saturating_sub(1));
                !frontier.less_equal(&before) && !step.waits_for().is_some_and(|other| frontier.less_equal(&other))
            };
            let Some(step) = self.held.keys().copied().find(complete) else { return false };
            let Some(capability) = self.held.remove(&step) else { return false };
            let finished = self.hub.run(step, enough);
            self.hold(&capability);
            for (target, packets) in self.hub.take_outgoing() {
                send(&capability, Frame::new(target, packets));
            }
            if !finished {
                self.held.insert(step, capability);
                return true;
            }
            if enough() {
                return self.held.keys().any(complete);
            }
        }
    }

    /// Notes how large the state is, now and then: seldom enough to take a hundredth of the time at most.
    fn measure(&mut self) {
        let now = self.shared.env.monotonic_nanos();
        if now >= self.measure_at {
            self.hub.measure();
            let took = self.shared.env.monotonic_nanos() - now;
            self.measure_at = now + MEASURE_NANOS.max(took.saturating_mul(100));
        }
    }

    /// Notes which epochs are done.
    fn finish(&mut self, frontier: &Antichain<Step>) {
        let held = self.held.keys().map(|s| s.epoch).min();
        let source = self.source.as_ref().map(|c| c.time().epoch);
        let ahead = frontier.iter().map(|s| s.epoch).min();
        let done = [held, source, ahead].into_iter().flatten().min().unwrap_or(Epoch::MAX);
        if done <= self.done {
            return;
        }
        self.done = done;
        self.hub.retire(done);
        self.measure();
        if self.hub.is_first() {
            self.shared.done.store(done, Ordering::Release);
            (self.shared.on_done)();
        }
    }
}
