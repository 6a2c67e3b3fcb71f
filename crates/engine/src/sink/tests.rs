use std::collections::VecDeque;
use std::sync::atomic::Ordering;

use arrow::array::{Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use tidemill_connect::SinkError;
use tidemill_env::ManualClock;

use super::*;

/// What a destination does with commits; shared with the test.
#[derive(Default)]
struct World {
    /// Answers to the next opens and commits; then all succeed.
    answers: VecDeque<SinkError>,
    /// All of them fail.
    down: bool,
    opened: usize,
    /// Per commit the epochs in it.
    commits: Vec<Vec<Epoch>>,
    rejects: bool,
    finished: bool,
    forgotten: bool,
}

struct Fake {
    world: Arc<Mutex<World>>,
    pace: Pace,
    has: Option<Epoch>,
    written: Vec<Epoch>,
    rejected: Vec<Rejected>,
}

impl Fake {
    fn answer(world: &mut World) -> Result<(), SinkError> {
        if world.down {
            return Err(SinkError::retry("it is down"));
        }
        world.answers.pop_front().map_or(Ok(()), Err)
    }
}

impl Sink for Fake {
    fn open(&mut self, _opening: Opening) -> Result<Option<Epoch>, SinkError> {
        let mut world = self.world.lock();
        world.opened += 1;
        Fake::answer(&mut world).map(|()| self.has)
    }

    fn write(&mut self, epoch: Epoch, delta: &Delta) -> Result<(), SinkError> {
        self.written.push(epoch);
        if self.world.lock().rejects {
            self.rejected.push(Rejected { epoch, delta: delta.clone(), reason: "no".into(), attempts: 2 });
        }
        Ok(())
    }

    fn commit(&mut self, epoch: Epoch) -> Result<(), SinkError> {
        let mut world = self.world.lock();
        Fake::answer(&mut world)?;
        assert_eq!(self.written.last(), Some(&epoch));
        world.commits.push(std::mem::take(&mut self.written));
        Ok(())
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        self.world.lock().finished = true;
        Ok(())
    }

    fn forget(&mut self) -> Result<(), SinkError> {
        self.world.lock().forgotten = true;
        Ok(())
    }

    fn take_rejected(&mut self) -> Vec<Rejected> {
        std::mem::take(&mut self.rejected)
    }

    fn pace(&self) -> Pace {
        self.pace
    }
}

struct Bench {
    world: Arc<Mutex<World>>,
    clock: Arc<ManualClock>,
    woken: Arc<AtomicU64>,
    pace: Pace,
    has: Option<Epoch>,
    known: Option<Epoch>,
    rows: u64,
    first: Vec<(Epoch, Delta)>,
}

impl Bench {
    fn new() -> Self {
        Bench {
            world: Arc::default(),
            clock: Arc::default(),
            woken: Arc::default(),
            pace: Pace { commit_interval: Duration::ZERO, local: false, retry_for: None },
            has: None,
            known: None,
            rows: 0,
            first: Vec::new(),
        }
    }

    fn start(&mut self, opened: bool) -> RunningSink {
        let sink = self.start_held(opened);
        sink.release();
        sink
    }

    fn start_held(&mut self, opened: bool) -> RunningSink {
        let (written, rejected) = (Vec::new(), Vec::new());
        let sink = Fake { world: self.world.clone(), pace: self.pace, has: self.has, written, rejected };
        let opening = (!opened).then_some(Opening { incarnation: 2, created: false });
        let first = std::mem::take(&mut self.first);
        let (committed, rows) = (self.known, self.rows);
        let start = Start { name: "s".into(), from: 1, sink: Box::new(sink), opening, committed, rows, first };
        let woken = self.woken.clone();
        let wake = Arc::new(move || {
            woken.fetch_add(1, Ordering::SeqCst);
        });
        RunningSink::start(start, Env::simulated(self.clock.clone()), wake).expect("a thread")
    }

    fn delivered(&self) -> Vec<Epoch> {
        self.world.lock().commits.concat()
    }
}

fn change(rows: usize) -> Delta {
    let schema = Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, true)]));
    Delta::inserts(RecordBatch::try_new(schema, vec![Arc::new(Int64Array::from(vec![7; rows]))]).expect("valid"))
}

/// Waits for what another thread does.
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..2000 {
        if holds() {
            return;
        }
        std::thread::park_timeout(Duration::from_millis(5));
    }
    panic!("it does not come about: {what}");
}

#[test]
fn epochs_arrive_whole_and_in_order() {
    let mut bench = Bench::new();
    bench.first = vec![(3, change(10))];
    let sink = bench.start(true);
    for epoch in 4..100 {
        sink.send(epoch, &[change(1), change(0), change(2)]);
    }
    until("flushed", || sink.flushed());
    assert_eq!((sink.committed(), sink.undelivered().len()), (99, 0));
    assert_eq!(sink.progress.rows.load(Ordering::Relaxed), 10 + 96 * 3);
    for commit in &bench.world.lock().commits {
        let complete =
            |epoch: &&Epoch| commit.iter().filter(|e| e == epoch).count() == if **epoch == 3 { 1 } else { 2 };
        assert!(commit.iter().all(|e| complete(&e)), "{commit:?}");
    }
    assert!(bench.delivered().is_sorted());
    end_all(vec![sink], Ending::Stop);
    let world = bench.world.lock();
    assert_eq!((world.finished, world.forgotten), (true, false));
}

#[test]
fn what_the_destination_has_is_left_out() {
    let mut bench = Bench::new();
    bench.has = Some(5);
    bench.first = vec![(4, change(1)), (5, change(1)), (6, change(1))];
    bench.world.lock().down = true;
    let sink = bench.start(false);
    sink.send(7, &[change(1)]);
    until("retrying", || sink.progress.state() == SinkState::Retrying("it is down".into()));
    assert!(!sink.flushed());
    assert_eq!(sink.undelivered().iter().map(|(epoch, _)| *epoch).collect::<Vec<_>>(), [4, 5, 6, 7]);
    bench.world.lock().down = false;
    until("flushed", || sink.flushed());
    assert_eq!((bench.delivered(), sink.progress.state()), (vec![6, 7], SinkState::Running));
    end_all(vec![sink], Ending::Drop);
    let world = bench.world.lock();
    assert_eq!((world.finished, world.forgotten), (true, true));
}

#[test]
fn commits_keep_their_distance() {
    let mut bench = Bench::new();
    bench.pace.commit_interval = Duration::from_millis(100);
    let sink = bench.start(true);
    sink.send(1, &[change(1)]);
    until("the first is not held back", || sink.committed() == 1);
    sink.send(2, &[change(1)]);
    sink.send(3, &[change(1)]);
    std::thread::park_timeout(Duration::from_millis(150));
    assert_eq!(sink.committed(), 1, "the clock stands still");
    bench.clock.advance_micros(100_000);
    until("the others come together", || sink.committed() == 3);
    assert_eq!(bench.world.lock().commits, [vec![1], vec![2, 3]]);
    sink.send(4, &[change(1)]);
    until("whoever waits does not wait for the clock", || sink.flushed());
    end_all(vec![sink], Ending::Stop);
}

#[test]
fn a_dead_destination_holds_nothing_up() {
    let mut bench = Bench::new();
    bench.world.lock().down = true;
    let sink = bench.start(true);
    sink.send(0, &[change(1)]);
    until("retrying", || matches!(sink.progress.state(), SinkState::Retrying(_)));
    let mut sent = 0;
    while sink.given_up().is_none() {
        sent += 1;
        assert!(sent < 200, "the queue has no bound");
        sink.send(sent, &[change(128 << 10)]);
    }
    assert!(sent > 60, "the bound is 64 MiB: {sent}");
    let SinkState::Stopped(reason) = sink.progress.state() else { panic!("it stops") };
    assert!(reason.contains("fell behind by more than 64 MiB") && reason.ends_with("it was: it is down"), "{reason}");
    assert!(sink.undelivered().is_empty() && sink.flushed());
    sink.send(sent + 1, &[change(1)]);
    assert!(sink.undelivered().is_empty());
    end_all(vec![sink], Ending::Stop);
    assert!(bench.delivered().is_empty());
}

#[test]
fn a_local_sink_is_waited_for() {
    let mut bench = Bench::new();
    bench.pace.local = true;
    let sink = bench.start(true);
    for epoch in 1..=300 {
        sink.send(epoch, &[change(128 << 10)]);
    }
    until("flushed", || sink.flushed());
    assert_eq!(bench.delivered(), (1..=300).collect::<Vec<_>>());
    end_all(vec![sink], Ending::Stop);
}

#[test]
fn errors_stop_a_sink_or_not() {
    let mut bench = Bench::new();
    let first = [SinkError::retry("busy"), SinkError::retry("busy"), SinkError::fatal("no such table")];
    bench.world.lock().answers.extend(first);
    let sink = bench.start(true);
    sink.send(1, &[change(1)]);
    until("stopped", || sink.progress.state() == SinkState::Stopped("no such table".into()));
    // It may go on after a restart: nothing is given up.
    assert!(sink.flushed() && sink.given_up().is_none());
    assert_eq!(sink.undelivered().len(), 1);
    assert!(sink.at_rest() && !sink.fenced());
    end_all(vec![sink], Ending::Drop);
    assert!(bench.world.lock().forgotten);

    let mut bench = Bench::new();
    bench.world.lock().answers.push_back(SinkError::fenced(1, 2));
    let sink = bench.start(true);
    sink.send(1, &[change(1)]);
    until("fenced", || sink.given_up().is_some());
    assert!(sink.undelivered().is_empty() && sink.fenced() && sink.at_rest());
    end_all(vec![sink], Ending::Stop);

    let mut bench = Bench::new();
    bench.pace.retry_for = Some(Duration::from_secs(60));
    bench.world.lock().down = true;
    let sink = bench.start(true);
    sink.send(1, &[change(1)]);
    until("retrying", || matches!(sink.progress.state(), SinkState::Retrying(_)));
    bench.clock.advance_micros(60_000_000);
    until("stopped", || sink.progress.state() == SinkState::Stopped("it is down".into()));
    end_all(vec![sink], Ending::Stop);
}

#[test]
fn another_goes_on_in_its_place() {
    let mut bench = Bench::new();
    bench.world.lock().answers.push_back(SinkError::retry("busy"));
    let sink = bench.start(true);
    sink.send(1, &[change(1)]);
    until("delivered", || sink.committed() == 1);
    assert!(!sink.has_stopped() && !sink.at_rest());
    bench.world.lock().answers.push_back(SinkError::fatal("no such table"));
    sink.send(2, &[change(1)]);
    sink.send(3, &[change(1)]);
    until("stopped", || sink.at_rest());
    sink.send(4, &[change(1)]);
    // The destination may have more than the sink knows: the answer to its last commit may be what was lost.
    (bench.first, bench.known, bench.rows) = (sink.undelivered(), Some(2), 1);
    sink.retire();
    let next = bench.start(true);
    assert_eq!((next.committed(), next.progress.state()), (2, SinkState::Running));
    next.send(5, &[change(1)]);
    until("flushed", || next.flushed());
    assert_eq!(bench.delivered(), [1, 3, 4, 5]);
    assert_eq!(next.progress.rows.load(Ordering::Relaxed), 4);
    let world = bench.world.clone();
    assert!(!world.lock().finished, "the one that has stopped says nothing to the destination");
    end_all(vec![next], Ending::Stop);
    assert!(world.lock().finished);
}

#[test]
fn what_is_known_holds_where_the_destination_knows_nothing() {
    let mut bench = Bench::new();
    (bench.first, bench.known) = (vec![(4, change(1)), (5, change(1))], Some(4));
    let sink = bench.start(false);
    until("flushed", || sink.flushed());
    assert_eq!(bench.delivered(), [5]);
    end_all(vec![sink], Ending::Stop);
}

#[test]
fn the_end_does_not_wait_for_a_dead_destination() {
    let mut bench = Bench::new();
    bench.world.lock().down = true;
    let sink = bench.start(true);
    sink.send(1, &[change(1)]);
    let (progress, shared) = (sink.progress.clone(), sink.shared.clone());
    end_all(vec![sink], Ending::Stop);
    assert!(matches!(progress.state(), SinkState::Retrying(_)));
    assert_eq!(shared.queue.lock().waiting.len(), 1, "it is still to be saved");
    assert!(!bench.world.lock().finished);
}

#[test]
fn refused_rows_are_handed_over_before_they_count() {
    let mut bench = Bench::new();
    bench.world.lock().rejects = true;
    let sink = bench.start(true);
    sink.send(1, &[change(3)]);
    until("woken", || bench.woken.load(Ordering::SeqCst) > 0);
    assert_eq!((sink.committed(), sink.undelivered().len()), (0, 1));
    let rejected = sink.take_rejected();
    assert_eq!((rejected.len(), rejected[0].delta.len(), rejected[0].attempts), (1, 3, 2));
    until("committed", || sink.committed() == 1);
    sink.send(2, &[change(3)]);
    until("woken", || bench.woken.load(Ordering::SeqCst) > 1);
    end_all(vec![sink], Ending::Stop);
    assert!(!bench.world.lock().finished, "nobody took the last ones");
}

#[test]
fn nothing_is_delivered_before_it_is_certain_that_the_sink_is_there() {
    for opened in [true, false] {
        let mut bench = Bench::new();
        bench.first = vec![(3, change(1))];
        let sink = bench.start_held(opened);
        sink.send(4, &[change(1)]);
        std::thread::park_timeout(Duration::from_millis(50));
        assert_eq!((bench.delivered(), bench.world.lock().opened), (vec![], 0));
        sink.release();
        until("flushed", || sink.flushed());
        assert_eq!(bench.delivered(), [3, 4]);
        end_all(vec![sink], Ending::Stop);
    }
    // The engine ends before: somebody else may know.
    let mut bench = Bench::new();
    bench.first = vec![(3, change(1))];
    end_all(vec![bench.start_held(false)], Ending::Stop);
    assert_eq!((bench.delivered(), bench.world.lock().opened), (vec![], 0));
    // It turns out that there is none.
    for local in [true, false] {
        let mut bench = Bench::new();
        bench.pace.local = local;
        bench.first = vec![(3, change(1))];
        let sink = bench.start_held(false);
        let shared = sink.shared.clone();
        sink.discard();
        until("ended", || shared.queue.lock().ended);
        let world = bench.world.lock();
        assert_eq!((world.commits.len(), world.opened, world.forgotten), (0, 0, false));
    }
}

#[test]
fn what_waits_for_a_long_journal_is_bounded_but_not_given_up() {
    for local in [true, false] {
        let mut bench = Bench::new();
        bench.pace.local = local;
        let sink = bench.start_held(false);
        for epoch in 1..=300 {
            sink.send(epoch, &[change(128 << 10)]);
        }
        assert!(!local || !bench.delivered().is_empty(), "it goes before too much waits");
        sink.release();
        until("flushed", || sink.flushed());
        assert_eq!(bench.delivered(), (1..=300).collect::<Vec<_>>());
        end_all(vec![sink], Ending::Stop);
    }
}
