//! The sessions of each key in the order of time, and what an epoch does to them.

use smallvec::SmallVec;

use super::Turn;

/// A session at some moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Snapshot {
    pub(super) session: u32,
    pub(super) key: u32,
    pub(super) first: i64,
    pub(super) last: i64,
}

/// See the module. Times are in the unit of the time column.
pub(super) struct Timeline {
    gap: i64,
    sessions: Vec<Slot>,
    free: Vec<u32>,
    /// Per key its sessions; they do not touch each other.
    keys: Vec<SmallVec<[u32; 4]>>,
    touched: Vec<Touched>,
    /// Sessions that ended in this epoch, by merging or because their rows are gone.
    ended: Vec<u32>,
}

struct Slot {
    first: i64,
    last: i64,
    key: u32,
    /// Whether it is in [`Timeline::touched`].
    touched: bool,
    /// The session that has taken this one in; itself while it is there.
    into: u32,
    alive: bool,
    /// Whether it waits to become final.
    closing: bool,
    /// Whether it has been saved with the first time that it has.
    saved: bool,
    /// Whether it has changed since the last save.
    changed: bool,
}

/// A session that the epoch changes.
struct Touched {
    session: u32,
    /// As it was before, if it was there.
    before: Option<Snapshot>,
}

impl Timeline {
    pub(super) fn new(gap: i64) -> Self {
        Timeline {
            gap,
            sessions: Vec::new(),
            free: Vec::new(),
            keys: Vec::new(),
            touched: Vec::new(),
            ended: Vec::new(),
        }
    }

    /// Makes room for keys.
    pub(super) fn make_room(&mut self, keys: usize) {
        if keys > self.keys.len() {
            self.keys.resize_with(keys, SmallVec::new);
        }
    }

    /// What arrays indexed by session need.
    pub(super) fn capacity(&self) -> usize {
        self.sessions.len()
    }

    /// How many sessions there are.
    pub(super) fn len(&self) -> usize {
        self.sessions.iter().filter(|s| s.alive).count()
    }

    pub(super) fn bytes(&self) -> usize {
        self.sessions.capacity() * size_of::<Slot>() + self.keys.capacity() * size_of::<SmallVec<[u32; 4]>>()
    }

    /// Puts a row into a session of its key: one that it touches, which grows, or a new one.
    #[inline]
    pub(super) fn place(&mut self, key: u32, time: i64) -> u32 {
        let list = &self.keys[key as usize];
        // Most rows belong to their key's latest session.
        if let Some(latest) = list.last().copied() {
            let slot = &self.sessions[latest as usize];
            if time >= slot.first && time <= slot.last.saturating_add(self.gap) {
                self.touch(latest);
                let slot = &mut self.sessions[latest as usize];
                slot.last = slot.last.max(time);
                return latest;
            }
        }
        self.place_anywhere(key, time)
    }

    fn place_anywhere(&mut self, key: u32, time: i64) -> u32 {
        let at = self.first_ending_from(key, time - self.gap);
        match self.keys[key as usize].get(at).copied() {
            Some(session) if self.sessions[session as usize].first - self.gap <= time => {
                self.touch(session);
                let slot = &mut self.sessions[session as usize];
                (slot.first, slot.last) = (slot.first.min(time), slot.last.max(time));
                self.merge_next(key, at);
                session
            }
            _ => self.create_at(key, at, time, time),
        }
    }

    /// The place in the key's list of the first session whose last time is at least `time`.
    pub(super) fn first_ending_from(&self, key: u32, time: i64) -> usize {
        self.keys[key as usize].partition_point(|s| self.sessions[*s as usize].last < time)
    }

    /// Merges the session after the place given into the one there, if they touch now.
    fn merge_next(&mut self, key: u32, at: usize) {
        let list = &self.keys[key as usize];
        let Some(next) = list.get(at + 1).copied() else { return };
        let session = list[at];
        if self.sessions[next as usize].first - self.gap <= self.sessions[session as usize].last {
            let last = self.sessions[next as usize].last;
            self.end(next);
            self.sessions[next as usize].into = session;
            let slot = &mut self.sessions[session as usize];
            slot.last = slot.last.max(last);
        }
    }

    /// Makes a session.
    pub(super) fn create(&mut self, key: u32, first: i64, last: i64) -> u32 {
        let at = self.first_ending_from(key, first);
        self.create_at(key, at, first, last)
    }

    fn create_at(&mut self, key: u32, at: usize, first: i64, last: i64) -> u32 {
        let slot = Slot {
            first,
            last,
            key,
            touched: true,
            into: 0,
            alive: true,
            closing: false,
            saved: false,
            changed: false,
        };
        let session = match self.free.pop() {
            Some(session) => {
                self.sessions[session as usize] = slot;
                session
            }
            None => {
                self.sessions.push(slot);
                u32::try_from(self.sessions.len() - 1).expect("at most 2^32 sessions per operator and worker")
            }
        };
        self.sessions[session as usize].into = session;
        self.touched.push(Touched { session, before: None });
        self.keys[key as usize].insert(at, session);
        session
    }

    /// The key's sessions that rows between the two times belong to or touch.
    pub(super) fn touching(&self, key: u32, from: i64, to: i64) -> Vec<Snapshot> {
        let start = self.first_ending_from(key, from - self.gap);
        let list = self.keys[key as usize][start..].iter().map(|s| self.shot(*s));
        list.take_while(|s| s.first - self.gap <= to).collect()
    }

    /// Notes that a session changes, before it does.
    #[inline]
    pub(super) fn touch(&mut self, session: u32) {
        if !std::mem::replace(&mut self.sessions[session as usize].touched, true) {
            let before = Some(self.shot(session));
            self.touched.push(Touched { session, before });
        }
    }

    /// Gives a touched session other bounds, which keep it between its neighbours.
    pub(super) fn reshape(&mut self, session: u32, first: i64, last: i64) {
        let slot = &mut self.sessions[session as usize];
        (slot.first, slot.last) = (first, last);
    }

    /// Ends a session in this epoch.
    pub(super) fn end(&mut self, session: u32) {
        self.touch(session);
        self.remove(session);
        self.ended.push(session);
    }

    /// Takes a session out of its key's list.
    pub(super) fn remove(&mut self, session: u32) {
        let slot = &mut self.sessions[session as usize];
        slot.alive = false;
        let (key, last) = (slot.key, slot.last);
        let at = self.first_ending_from(key, last);
        let removed = self.keys[key as usize].remove(at);
        assert_eq!(removed, session, "a key's sessions are in the order of time");
    }

    /// Lets a session's number be used again.
    pub(super) fn recycle(&mut self, session: u32) {
        self.free.push(session);
    }

    /// The touched sessions as they were and as they are.
    pub(super) fn turn(&self) -> Turn {
        let mut turn = Turn::default();
        for touched in &self.touched {
            let slot = &self.sessions[touched.session as usize];
            let same_bounds = |old: &Snapshot| old.first == slot.first && old.last == slot.last;
            if slot.alive {
                turn.new.push(self.shot(touched.session));
                turn.twins.push(touched.before.filter(same_bounds).map(|_| turn.old.len() as u32));
            }
            turn.old.extend(touched.before);
        }
        self.find_twins_of_ended(&mut turn);
        turn
    }

    /// A session may have ended and come anew just as it was.
    fn find_twins_of_ended(&self, turn: &mut Turn) {
        let bounds = |s: &Snapshot| (s.key, s.first, s.last);
        let places = 0..turn.old.len() as u32;
        let mut ended: Vec<_> =
            places.filter(|i| !self.sessions[turn.old[*i as usize].session as usize].alive).collect();
        if ended.is_empty() {
            return;
        }
        ended.sort_unstable_by_key(|i| bounds(&turn.old[*i as usize]));
        for (new, twin) in turn.new.iter().zip(&mut turn.twins).filter(|(_, twin)| twin.is_none()) {
            let found = ended.binary_search_by_key(&bounds(new), |i| bounds(&turn.old[*i as usize]));
            *twin = found.ok().map(|at| ended[at]);
        }
    }

    /// Pairs of a session and one that it has taken in in this epoch.
    pub(super) fn merges(&self) -> Vec<(u32, u32)> {
        self.ended.iter().map(|session| (self.resolve(*session), *session)).collect()
    }

    /// The session that a session is part of now.
    pub(super) fn resolve(&self, mut session: u32) -> u32 {
        while self.sessions[session as usize].into != session {
            session = self.sessions[session as usize].into;
        }
        session
    }

    /// Forgets what was touched; the sessions that ended, whose numbers may be recycled.
    pub(super) fn end_turn(&mut self) -> Vec<u32> {
        for touched in self.touched.drain(..) {
            self.sessions[touched.session as usize].touched = false;
        }
        std::mem::take(&mut self.ended)
    }

    /// Whether nothing waits for the session's end yet; from now on something does.
    pub(super) fn wants_closing(&mut self, session: u32) -> bool {
        !std::mem::replace(&mut self.sessions[session as usize].closing, true)
    }

    /// Whether something waits for the session's end.
    pub(super) fn is_closing(&self, session: u32) -> bool {
        self.sessions[session as usize].closing
    }

    /// Whether the session was saved as it is no longer; from now on it counts as not saved.
    pub(super) fn leaves_saved(&mut self, session: u32) -> bool {
        std::mem::take(&mut self.sessions[session as usize].saved)
    }

    /// Whether a session was not known to have changed since the last save; from now on it is.
    pub(super) fn wants_saving(&mut self, session: u32) -> bool {
        !std::mem::replace(&mut self.sessions[session as usize].changed, true)
    }

    /// Notes that a session is saved as it is.
    pub(super) fn set_saved(&mut self, session: u32) {
        let slot = &mut self.sessions[session as usize];
        (slot.saved, slot.changed) = (true, false);
    }

    /// Whether a key has a session that begins at this time.
    pub(super) fn begins(&self, key: u32, first: i64) -> bool {
        let session = self.keys[key as usize].get(self.first_ending_from(key, first));
        session.is_some_and(|session| self.sessions[*session as usize].first == first)
    }

    /// Whether a key has no sessions.
    pub(super) fn is_gone(&self, key: u32) -> bool {
        self.keys[key as usize].is_empty()
    }

    /// A session as it is, unless it has ended.
    pub(super) fn snapshot(&self, session: u32) -> Option<Snapshot> {
        self.sessions[session as usize].alive.then(|| self.shot(session))
    }

    #[inline]
    fn shot(&self, session: u32) -> Snapshot {
        let Slot { first, last, key, .. } = self.sessions[session as usize];
        Snapshot { session, key, first, last }
    }
}
