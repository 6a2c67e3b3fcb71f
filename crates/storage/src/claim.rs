//! Who may commit: incarnations claim the store, and say which manifests they found.
//!
//! Everything is in objects' names, so one listing tells it all, and no content can be damaged. An incarnation
//! first puts its *claim*, then lists the manifests, then puts its *fence*, which names the last one of them. A
//! manifest of an older incarnation that comes after the last one that a younger one found is a
//! *ghost*: its commit was refused, the younger process never knew of it, and so it never counts.

use crate::manifest::MANIFEST;
use crate::{Manifest, Object, ObjectStore, StorageError};

/// How the names of claims and of fences begin.
pub(crate) const CLAIM: &str = "incarnation-";

/// What stands between a fence's incarnation and the manifest.
const AFTER: &str = "-after-";

/// An incarnation and a sequence, as in a manifest's name; zeros where there was no manifest.
pub(crate) type Place = (u64, u64);

/// The claims and fences in a store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Claims {
    /// Incarnations that claimed it, oldest first.
    claims: Vec<u64>,
    /// What they then found as the last manifest, by incarnation.
    fences: Vec<(u64, Place)>,
}

impl Claims {
    pub(crate) fn of<S: ObjectStore>(store: &S) -> Result<Self, StorageError> {
        Ok(Self::among(&store.list(CLAIM)?))
    }

    /// Those among objects, which are sorted by name.
    pub(crate) fn among(objects: &[Object]) -> Self {
        let mut found = Claims::default();
        for rest in objects.iter().filter_map(|object| object.name.strip_prefix(CLAIM)) {
            match rest.split_once(AFTER) {
                None => found.claims.extend(rest.parse::<u64>()),
                Some((incarnation, place)) => {
                    let place = Manifest::place(&format!("{MANIFEST}{place}"));
                    found.fences.extend(incarnation.parse().ok().zip(place));
                }
            }
        }
        found
    }

    /// The youngest incarnation that took over; 0 if none did.
    pub(crate) fn youngest(&self) -> u64 {
        let fenced = self.fences.iter().map(|(incarnation, _)| *incarnation);
        fenced.chain(self.claims.iter().copied()).max().unwrap_or(0)
    }

    /// Refuses to go on if an incarnation younger than ours took over.
    pub(crate) fn refuse_younger_than(&self, ours: u64) -> Result<(), StorageError> {
        refuse_younger(ours, self.youngest())
    }

    /// Whether a manifest of this place came after a younger incarnation had looked what there was.
    pub(crate) fn is_ghost(&self, place: Place) -> bool {
        self.fences.iter().any(|(incarnation, last)| place.0 < *incarnation && place > *last)
    }

    /// Names of claims of older incarnations: once a younger one claims, they say nothing more.
    pub(crate) fn claims_before(&self, incarnation: u64) -> impl Iterator<Item = String> {
        self.claims.iter().filter(move |old| **old < incarnation).map(|old| claim(*old))
    }

    /// Names of fences that keep nothing out any more, as no manifest that is left is older.
    pub(crate) fn fences_before(&self, oldest_manifest: u64, ours: u64) -> impl Iterator<Item = String> {
        let old = move |fence: &&(u64, Place)| fence.0 <= oldest_manifest && fence.0 < ours;
        self.fences.iter().filter(old).map(|(incarnation, last)| fence(*incarnation, *last))
    }
}

/// The name of an incarnation's claim.
pub(crate) fn claim(incarnation: u64) -> String {
    format!("{CLAIM}{incarnation:020}")
}

/// The name of the fence of an incarnation that found this as the last manifest.
pub(crate) fn fence(incarnation: u64, (of, sequence): Place) -> String {
    format!("{CLAIM}{incarnation:020}{AFTER}{of:020}-{sequence:020}")
}

pub(crate) fn refuse_younger(ours: u64, theirs: u64) -> Result<(), StorageError> {
    if theirs > ours { Err(StorageError::Replaced { ours, theirs }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_who_came_and_what_they_found() {
        let names =
            [claim(7), fence(5, (0, 0)), fence(7, (5, 3)), "incarnation-x".into(), "incarnation-8-after-".into()];
        assert!(names.iter().all(|name| name.len() <= 128));
        let objects = names.map(|name| Object { name, length: 0 });
        let claims = Claims::among(&objects);
        assert_eq!(claims, Claims { claims: vec![7], fences: vec![(5, (0, 0)), (7, (5, 3))] });
        assert_eq!(claims.youngest(), 7);
        for (place, ghost) in
            [((4, 1), true), ((5, 2), false), ((5, 3), false), ((5, 4), true), ((6, 4), true), ((7, 4), false)]
        {
            assert_eq!(claims.is_ghost(place), ghost, "{place:?}");
        }
        assert!(claims.refuse_younger_than(6).is_err());
        claims.refuse_younger_than(7).unwrap();
        assert_eq!(claims.fences_before(5, 7).collect::<Vec<_>>(), [fence(5, (0, 0))]);
        assert_eq!(claims.claims_before(8).collect::<Vec<_>>(), [claim(7)]);
    }
}
