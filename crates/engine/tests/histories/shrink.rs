//! Makes failing cases smaller: fewer steps, then fewer words in each.

use std::ops::Range;

use super::case::Step;

/// Smaller cases that are tried for each failing one.
const TRIALS: usize = 600;

/// A view that is not its query.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The view's name, if it is about one.
    pub view: Option<String>,
    /// In a word, so that a smaller case can be seen to fail in the same way.
    pub kind: &'static str,
    /// What was asked.
    pub query: String,
    /// What was wrong.
    pub complaint: String,
}

/// Whatever finds failures in cases.
#[allow(async_fn_in_trait, reason = "the tests' futures stay on their thread")]
pub trait Judge {
    /// The first thing that goes wrong in a case, with this view if one is given.
    async fn failure(&mut self, steps: &[Step], view: Option<&str>) -> Option<Failure>;
}

/// A failing case on its way to become small.
struct Shrinking<'a, J> {
    judge: &'a mut J,
    steps: Vec<Step>,
    failure: Failure,
    trials: usize,
}

/// Leaves out steps, statements and words for as long as the same view fails in the same way.
pub async fn smaller(judge: &mut impl Judge, steps: Vec<Step>, failure: Failure) -> (Vec<Step>, Failure) {
    let mut shrinking = Shrinking { judge, steps, failure, trials: TRIALS };
    shrinking.leave_out_views().await;
    shrinking.leave_out_steps().await;
    let mut before = usize::MAX;
    while shrinking.size() < before && shrinking.trials > 0 {
        before = shrinking.size();
        for at in (0..shrinking.steps.len()).rev() {
            shrinking.leave_out_words(at).await;
        }
        shrinking.leave_out_steps().await;
    }
    (shrinking.steps, shrinking.failure)
}

impl<J: Judge> Shrinking<'_, J> {
    fn size(&self) -> usize {
        self.steps.iter().map(|step| step.sql().len()).sum()
    }

    /// Whether a candidate fails as well; then it is the case from now on.
    async fn fails(&mut self, candidate: Vec<Step>) -> bool {
        if self.trials == 0 {
            return false;
        }
        self.trials -= 1;
        let Some(failure) = self.judge.failure(&candidate, self.failure.view.as_deref()).await else { return false };
        let start = |failure: &Failure| failure.complaint.chars().take(50).collect::<String>();
        let error = failure.kind.ends_with("error");
        let same = failure.view == self.failure.view
            && failure.kind == self.failure.kind
            && (!error || start(&failure) == start(&self.failure));
        if same {
            (self.steps, self.failure) = (candidate, failure);
        }
        same
    }

    /// Only the views that the failing one reads, at once.
    async fn leave_out_views(&mut self) {
        let mut read: Vec<String> = self.failure.view.iter().cloned().collect();
        let mut fewer = Vec::new();
        for step in self.steps.iter().rev() {
            match step {
                Step::View { name, query, same, .. } if read.contains(name) => {
                    read.extend(words(query));
                    read.extend(same.clone());
                    fewer.push(step.clone());
                }
                Step::View { .. } => {}
                _ => fewer.push(step.clone()),
            }
        }
        fewer.reverse();
        self.fails(fewer).await;
    }

    async fn leave_out_steps(&mut self) {
        let mut at = self.steps.len();
        while at > 0 {
            at -= 1;
            let mut fewer = self.steps.clone();
            fewer.remove(at);
            if self.fails(fewer).await {
                continue;
            }
            let Some(Step::Batch { statements, noise }) = self.steps.get(at).cloned() else { continue };
            if noise.is_some() {
                let mut quiet = self.steps.clone();
                quiet[at] = Step::Batch { statements: statements.clone(), noise: None };
                self.fails(quiet).await;
            }
            for i in (0..statements.len()).rev() {
                let mut fewer = self.steps.clone();
                if let Step::Batch { statements, .. } = &mut fewer[at]
                    && statements.len() > 1
                {
                    statements.remove(i);
                    self.fails(fewer).await;
                }
            }
        }
    }

    async fn leave_out_words(&mut self, at: usize) {
        let texts = match &self.steps[at] {
            Step::Table(_) => 0,
            Step::View { .. } => 1,
            Step::Batch { statements, .. } => statements.len(),
        };
        for text in 0..texts {
            let mut length = words(&text_of(&mut self.steps[at].clone(), text).clone()).len();
            while length > 0 {
                self.leave_out(at, text, length).await;
                length /= 2;
            }
        }
    }

    /// Tries to do without each run of `length` words, and without the parentheses around it.
    async fn leave_out(&mut self, at: usize, text: usize, length: usize) {
        let mut from = 0;
        loop {
            let all = words(text_of(&mut self.steps[at].clone(), text));
            if from + length > all.len() {
                return;
            }
            let run = &all[from..from + length];
            let candidate = [&all[..from], &all[from + length..]].concat();
            let mut steps = self.steps.clone();
            *text_of(&mut steps[at], text) = candidate.join(" ");
            if !balanced(run) || cuts_order(&all, from..from + length) || !self.fails(steps).await {
                from += 1;
            }
        }
    }
}

fn text_of(step: &mut Step, number: usize) -> &mut String {
    match step {
        Step::Table(sql) => sql,
        Step::View { query, .. } => query,
        Step::Batch { statements, .. } => &mut statements[number],
    }
}

/// Words, quoted texts, parentheses and commas.
fn words(sql: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted) = (Vec::new(), String::new(), false);
    for c in sql.chars() {
        quoted ^= c == '\'';
        match c {
            _ if quoted => word.push(c),
            '(' | ')' | ',' => {
                words.extend((!word.is_empty()).then(|| std::mem::take(&mut word)));
                words.push(c.to_string());
            }
            c if c.is_whitespace() => words.extend((!word.is_empty()).then(|| std::mem::take(&mut word))),
            c => word.push(c),
        }
    }
    words.extend((!word.is_empty()).then_some(word));
    words
}

fn balanced(words: &[String]) -> bool {
    let mut depth = 0;
    for word in words {
        depth += i32::from(word == "(") - i32::from(word == ")");
        if depth < 0 {
            return false;
        }
    }
    depth == 0
}

/// Whether a run takes something from an `ORDER BY`, but not all that is ordered by it. It says which rows are first: without it
/// any would do.
fn cuts_order(words: &[String], run: Range<usize>) -> bool {
    order_clauses(words).iter().any(|(clause, ordered)| {
        let apart = run.end <= clause.start || clause.end <= run.start;
        let whole = run.start <= ordered.start && ordered.end <= run.end;
        !apart && !whole
    })
}

/// The `ORDER BY` clauses, each with the parentheses or the statement that it is in.
fn order_clauses(words: &[String]) -> Vec<(Range<usize>, Range<usize>)> {
    let (mut clauses, mut groups) = (Vec::new(), vec![(0, None)]);
    for (i, word) in words.iter().enumerate() {
        let group = groups.last_mut();
        match (word.as_str(), group) {
            ("(", _) => groups.push((i, None)),
            (")", Some((start, order))) => {
                clauses.extend(order.map(|order| (order..i, *start..i + 1)));
                groups.pop();
            }
            ("ORDER", Some((_, order))) => *order = Some(i),
            _ => {}
        }
    }
    for (_, order) in groups.iter().take(1) {
        clauses.extend(order.map(|order| (order..words.len(), 0..words.len())));
    }
    clauses
}
