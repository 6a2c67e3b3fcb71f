//! Two ways to ask the same: a query, and one that puts its answer together from parts.
//!
//! Each row meets a condition, does not meet it, or it is unknown: the three parts are the whole
//! (ternary logic partitioning; Rigger and Su, "Finding Bugs in Database Systems via Query Partitioning", OOPSLA 2020).

use super::expression::{Column, Type};
use super::query::{Maker, Query};

impl Maker<'_> {
    /// A query and another with the same answer.
    pub fn same_answers(&mut self) -> (Query, Query) {
        match self.random.below(8) {
            0 | 1 => self.parts_of_rows(),
            2 | 3 => self.parts_of_groups(),
            4 => self.parts_of_join(),
            5 => self.outer_join_in_parts(),
            6 => self.parts_of_distinct(),
            _ => self.in_as_exists(),
        }
    }

    /// Whether a condition holds, does not hold, is unknown.
    fn three(&mut self, scope: &[Column]) -> [String; 3] {
        let p = self.predicate(scope, 2);
        [format!("({p})"), format!("(NOT ({p}))"), format!("(({p}) IS NULL)")]
    }

    fn parts_of_rows(&mut self) -> (Query, Query) {
        let (from, scope) = self.from(1);
        let types = self.types(&scope);
        let items = self.items(&scope, &types);
        let parts = self.three(&scope);
        let base = if self.one_in(2) { self.predicate(&scope, 1) } else { "true".to_string() };
        let part = |p: &String| format!("SELECT {items} FROM {from} WHERE ({base}) AND {p}");
        let whole = format!("SELECT {items} FROM {from} WHERE {base}");
        pair(whole, parts.iter().map(part).collect::<Vec<_>>().join(" UNION ALL "), types)
    }

    fn parts_of_distinct(&mut self) -> (Query, Query) {
        let (from, scope) = self.from(1);
        let types = self.types(&scope);
        let items = self.items(&scope, &types);
        let parts = self.three(&scope);
        let part = |p: &String| format!("SELECT {items} FROM {from} WHERE {p}");
        let whole = format!("SELECT DISTINCT {items} FROM {from}");
        pair(whole, parts.iter().map(part).collect::<Vec<_>>().join(" UNION "), types)
    }

    fn parts_of_groups(&mut self) -> (Query, Query) {
        let (from, scope) = self.from(1);
        let any = *self.pick(&[Type::Int, Type::Text, Type::Date, Type::Decimal]);
        let nested = std::mem::take(&mut self.nested);
        let (value, double, int) = (
            self.expression(&scope, any, 1),
            self.expression(&scope, Type::Double, 1),
            self.expression(&scope, Type::Int, 1),
        );
        self.nested = nested;
        let key = if self.one_in(4) { None } else { Some(self.pick(&scope).clone()) };
        let calls = format!(
            "count(*) AS n, count({value}) AS m, sum({double}) AS d, sum({int}) AS i, min({value}) AS l, max({value}) AS h"
        );
        let of_key = key.as_ref().map(|key| format!("{} AS g, ", key.0)).unwrap_or_default();
        let by = if key.is_some() { " GROUP BY 1" } else { "" };
        let parts = self.three(&scope);
        let part = |p: &String| format!("SELECT {of_key}{calls} FROM {from} WHERE {p}{by}");
        let parts = parts.iter().map(part).collect::<Vec<_>>().join(" UNION ALL ");
        let (alias, g) = (self.alias(), if key.is_some() { "g AS c0, " } else { "" });
        let columns = |of: &dyn Fn(&str) -> String| {
            let names = ["n", "m", "d", "i", "l", "h"].iter().enumerate();
            let first = usize::from(key.is_some());
            names.map(|(i, name)| format!("{} AS c{}", of(name), i + first)).collect::<Vec<_>>().join(", ")
        };
        let whole = format!("SELECT {of_key}{calls} FROM {from}{by}");
        let whole = format!("SELECT {g}{} FROM ({whole}) AS {alias}", columns(&|name| name.to_string()));
        let combined = columns(&|name| match name {
            "n" | "m" => format!("CAST(sum({name}) AS bigint)"),
            "i" => format!("CAST(sum({name}) AS bigint)"),
            "d" => format!("sum({name})"),
            "l" => format!("min({name})"),
            _ => format!("max({name})"),
        });
        let combined = format!("SELECT {g}{combined} FROM ({parts}) AS {alias}{by}");
        let mut types: Vec<Type> = key.iter().map(|key| key.1).collect();
        types.extend([Type::Bigint, Type::Bigint, Type::Double, Type::Bigint, any, any]);
        pair(whole, combined, types)
    }

    fn parts_of_join(&mut self) -> (Query, Query) {
        let ((left, l), (right, r)) = (self.named(), self.named());
        let on = self.join_condition(&l, &r, false);
        let scope = [l, r].concat();
        let types = self.types(&scope);
        let items = self.items(&scope, &types);
        let nested = std::mem::take(&mut self.nested);
        let parts = self.three(&scope);
        self.nested = nested;
        let part = |p: &String| format!("SELECT {items} FROM {left} JOIN {right} ON ({on}) AND {p}");
        let whole = format!("SELECT {items} FROM {left} JOIN {right} ON {on}");
        pair(whole, parts.iter().map(part).collect::<Vec<_>>().join(" UNION ALL "), types)
    }

    /// A left or full join is an inner one, and the rows without a partner.
    fn outer_join_in_parts(&mut self) -> (Query, Query) {
        let ((left, l), (right, r)) = (self.named(), self.named());
        let full = self.one_in(2);
        let nested = std::mem::take(&mut self.nested);
        let on = self.join_condition(&l, &r, full);
        self.nested = nested;
        let types: Vec<Type> = l.iter().chain(&r).map(|c| c.1).collect();
        let columns = |left: bool, right: bool| {
            let cell = |c: &Column, is: bool| if is { c.0.clone() } else { "NULL".to_string() };
            let cells = l.iter().map(|c| cell(c, left)).chain(r.iter().map(|c| cell(c, right)));
            cells.enumerate().map(|(i, cell)| format!("{cell} AS c{i}")).collect::<Vec<_>>().join(", ")
        };
        let both = columns(true, true);
        let kind = if full { "FULL" } else { "LEFT" };
        let whole = format!("SELECT {both} FROM {left} {kind} JOIN {right} ON {on}");
        let mut parts = format!("SELECT {both} FROM {left} JOIN {right} ON {on}");
        let alone = columns(true, false);
        parts =
            format!("{parts} UNION ALL SELECT {alone} FROM {left} WHERE NOT EXISTS (SELECT 1 FROM {right} WHERE {on})");
        if full {
            let alone = columns(false, true);
            parts = format!(
                "{parts} UNION ALL SELECT {alone} FROM {right} WHERE NOT EXISTS (SELECT 1 FROM {left} WHERE {on})"
            );
        }
        pair(whole, parts, types)
    }

    /// `IN` holds where an equal row exists; `NOT IN` where every row is known to be another.
    fn in_as_exists(&mut self) -> (Query, Query) {
        let ((outer, o), (inner, i)) = (self.named(), self.named());
        let pairs: Vec<(&Column, &Column)> =
            o.iter().flat_map(|o| i.iter().map(move |i| (o, i))).filter(|(o, i)| o.1 == i.1).collect();
        if pairs.is_empty() {
            return self.parts_of_rows();
        }
        let (x, y) = *self.pick(&pairs);
        let (x, y) = (x.0.clone(), y.0.clone());
        let types = self.types(&o);
        let items = self.items(&o, &types);
        let (one, other) = match self.one_in(2) {
            true => {
                (format!("{x} IN (SELECT {y} FROM {inner})"), format!("EXISTS (SELECT 1 FROM {inner} WHERE {y} = {x})"))
            }
            false => (
                format!("{x} NOT IN (SELECT {y} FROM {inner})"),
                format!("NOT EXISTS (SELECT 1 FROM {inner} WHERE ({y} = {x}) IS NOT FALSE)"),
            ),
        };
        let ask = |p: String| format!("SELECT {items} FROM {outer} WHERE {p}");
        pair(ask(one), ask(other), types)
    }
}

fn pair(one: String, other: String, types: Vec<Type>) -> (Query, Query) {
    (Query { sql: one, types: types.clone() }, Query { sql: other, types })
}
