//! What the user should know about a view: state that grows without bound, recomputation.

use tidemill_plan::{AggregateCall, AggregatePlan, Node, Op, SessionPlan};

use super::Lower;
use crate::Notice;

impl Lower<'_> {
    /// The notices collected on the way, and one for each node that keeps state for ever.
    pub(super) fn notices(&mut self) -> Vec<Notice> {
        let mut notices = std::mem::take(&mut self.notices);
        notices.extend(self.nodes.iter().flat_map(|node| recomputed(node).into_iter().chain(self.notice(node))));
        notices.dedup();
        notices
    }

    fn notice(&self, node: &Node) -> Option<Notice> {
        let notice = |message: String, hint: &str| Some(Notice { message, hint: Some(hint.to_string()) });
        let input = |i: usize| &self.nodes[node.inputs[i].from].schema;
        let names = |schema: &arrow::datatypes::Schema, columns: &[usize]| {
            columns.iter().map(|c| schema.field(*c).name().as_str()).collect::<Vec<_>>().join(", ")
        };
        match &node.op {
            Op::Aggregate(a) if a.closes.is_none() && !a.keys.is_empty() => notice(
                format!("the groups by ({}) are kept for ever", names(input(0), &a.keys)),
                "Group by a window too (TUMBLE or HOP over a source with a WATERMARK) to drop old groups.",
            ),
            Op::Aggregate(a) if a.keys.is_empty() => {
                let kept = a.calls.iter().filter(|c| c.keeps_values(a.append_only)).map(|c| c.label.as_str());
                let kept: Vec<_> = kept.collect();
                if kept.is_empty() {
                    return None;
                }
                notice(
                    format!("all values of {} are kept for ever", kept.join(", ")),
                    "Group by a window (TUMBLE or HOP over a source with a WATERMARK) to drop old values.",
                )
            }
            Op::Session(s) if s.closes.is_none() => notice(
                format!("the sessions by ({}) are kept for ever", names(input(0), &s.keys)),
                "Declare a WATERMARK for the time column to drop old sessions.",
            ),
            Op::Join(j) => {
                let open = match (&j.evict[0], &j.evict[1]) {
                    (Some(_), Some(_)) => return None,
                    (None, Some(_)) => "the left rows",
                    (Some(_), None) => "the right rows",
                    (None, None) => "the rows of both sides",
                };
                let (left, right) = (names(input(0), &j.left_keys), names(input(1), &j.right_keys));
                let on = if left.is_empty() { "of all pairs".into() } else { format!("on ({left}) = ({right})") };
                notice(
                    format!("{open} of the join {on} are kept for ever"),
                    "Bound the time between both sides in the join condition, \
                     for example b.ts BETWEEN a.ts AND a.ts + INTERVAL '1 hour'.",
                )
            }
            Op::AsOf(a) if a.evict.is_none() => notice(
                "the rows of both sides of the as-of join are kept for ever".into(),
                "Over append-only inputs with a WATERMARK for both times, and a match before, old rows go.",
            ),
            Op::TopN(t) if t.closes.is_none() && !t.partition.is_empty() => notice(
                format!("the first rows per ({}) are kept for ever", names(input(0), &t.partition)),
                "Partition by a window too to drop old partitions.",
            ),
            Op::TopN(t) if !t.append_only && t.closes.is_none() => notice(
                "all rows below ORDER BY ... LIMIT are kept: rows may be taken back".into(),
                "Over append-only inputs only the first rows are kept.",
            ),
            Op::Over(o) if o.evicts.is_some() => None,
            Op::Over(o) if o.closes.is_none() => notice(
                match o.partition.is_empty() {
                    true => "the rows below OVER are kept for ever".into(),
                    false => format!(
                        "the rows below OVER (PARTITION BY {}) are kept for ever",
                        names(input(0), &o.partition)
                    ),
                },
                "Partition by a window too (TUMBLE or HOP over a source with a WATERMARK) to drop old partitions.",
            ),
            Op::Recursion(plan) if plan.distinct => notice(
                "the rows of WITH RECURSIVE are kept until what they are made of is deleted".into(),
                "Bound how deep it goes, or delete what is not needed any more.",
            ),
            Op::Recompute(_) if node.inputs.is_empty() => None,
            Op::Recompute(r) if r.label == "NOT IN" => notice(
                "NOT IN over columns that can be NULL keeps all of its input and recomputes it at every change".into(),
                "Use NOT EXISTS, or declare the columns NOT NULL.",
            ),
            Op::Recompute(r) => notice(
                format!("{} has no incremental rule: it keeps all of its input and recomputes what changes", r.label),
                "EXPLAIN shows the view's operators and their state.",
            ),
            _ => None,
        }
    }
}

/// What is to be known of aggregates that are computed from the rows of their group.
fn recomputed(node: &Node) -> Option<Notice> {
    let (Op::Aggregate(AggregatePlan { calls, .. }) | Op::Session(SessionPlan { calls, .. })) = &node.op else {
        return None;
    };
    let labels: Vec<_> = calls.iter().filter(|c| c.is_recomputed()).map(|c: &AggregateCall| c.label.as_str()).collect();
    if labels.is_empty() {
        return None;
    }
    let message = format!(
        "{} has no incremental rule: a group's rows are kept, and it is computed anew whenever its group changes",
        labels.join(", ")
    );
    Some(Notice { message, hint: Some("EXPLAIN shows the view's operators and their state.".into()) })
}
