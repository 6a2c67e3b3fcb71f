//! `(regexp_match(text, 'pattern'))[n]`: the most common use of a regular expression's groups.
//!
//! As written it makes an array of all groups for each row and picks one. With a constant pattern and place it is
//! one function here, which compiles the pattern once, when the statement is planned, and copies nothing
//! but the group. A group that takes no part in the match is NULL, as in PostgreSQL.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, AsArray, StringBuilder};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, LogicalPlan, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};
use datafusion::optimizer::AnalyzerRule;
use regex::Regex;

/// Replaces the array and the pick by [`RegexpGroup`]. Comes after types are coerced.
#[derive(Debug)]
pub(crate) struct RegexpGroups;

impl RegexpGroups {
    fn rewrite(&self, plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
        let schema = merge_schema(&plan.inputs());
        let names = NamePreserver::new(&plan);
        let plan = plan.map_expressions(|expr| {
            let name = names.save(&expr);
            let rewritten = expr.transform_up(|expr| Ok(group(expr, &schema)))?;
            Ok(rewritten.update_data(|expr| name.restore(expr)))
        })?;
        plan.map_data(|plan| plan.recompute_schema())
    }
}

impl AnalyzerRule for RegexpGroups {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        Ok(plan.transform_up_with_subqueries(|plan| self.rewrite(plan))?.data)
    }

    fn name(&self) -> &str {
        "regexp_groups"
    }
}

fn group(expr: Expr, schema: &DFSchema) -> Transformed<Expr> {
    let Some((text, pattern, place)) = parts(&expr) else { return Transformed::no(expr) };
    // A wrong pattern is reported where it always is: when the function runs.
    let (Ok(regex), Ok(DataType::Utf8)) = (Regex::new(pattern), text.get_type(schema)) else {
        return Transformed::no(expr);
    };
    let function = ScalarUDF::new_from_impl(RegexpGroup::new(regex, place));
    Transformed::yes(function.call(vec![text.clone()]))
}

/// The text, the pattern and the place, if the expression is of this form and both are constant.
fn parts(expr: &Expr) -> Option<(&Expr, &str, usize)> {
    let (found, place) = arguments(expr, "array_element")?;
    let (text, pattern) = arguments(found, "regexp_match")?;
    let Expr::Literal(ScalarValue::Int64(Some(place)), _) = place else { return None };
    let Expr::Literal(pattern, _) = pattern else { return None };
    let place = usize::try_from(*place).ok().filter(|place| *place > 0)?;
    Some((text, pattern.try_as_str().flatten()?, place))
}

/// The arguments of a call of a function that has two.
fn arguments<'a>(expr: &'a Expr, name: &str) -> Option<(&'a Expr, &'a Expr)> {
    match expr {
        Expr::ScalarFunction(ScalarFunction { func, args }) if func.name() == name => match args.as_slice() {
            [first, second] => Some((first, second)),
            _ => None,
        },
        _ => None,
    }
}

/// What a group of a pattern matched first.
#[derive(Debug)]
struct RegexpGroup {
    regex: Regex,
    /// From 1, as users count.
    place: usize,
    name: String,
    signature: Signature,
}

impl RegexpGroup {
    fn new(regex: Regex, place: usize) -> Self {
        let name = format!("regexp_match['{}'][{place}]", regex.as_str());
        let signature = Signature::exact(vec![DataType::Utf8], Volatility::Immutable);
        RegexpGroup { regex, place, name, signature }
    }
}

impl PartialEq for RegexpGroup {
    fn eq(&self, other: &Self) -> bool {
        self.regex.as_str() == other.regex.as_str() && self.place == other.place
    }
}

impl Eq for RegexpGroup {}

impl Hash for RegexpGroup {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.regex.as_str(), self.place).hash(state);
    }
}

impl ScalarUDFImpl for RegexpGroup {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let texts = cast(&args.args[0].to_array(args.number_rows)?, &DataType::Utf8)?;
        let texts = texts.as_string::<i32>();
        let mut groups = self.regex.capture_locations();
        // A pattern without groups gives its whole match.
        let place = if groups.len() == 1 { self.place - 1 } else { self.place };
        let mut found = StringBuilder::with_capacity(texts.len(), texts.len() * 8);
        for row in 0..texts.len() {
            let text = if texts.is_null(row) { None } else { Some(texts.value(row)) };
            let matched = text.and_then(|text| {
                self.regex.captures_read(&mut groups, text)?;
                groups.get(place).map(|(from, to)| &text[from..to])
            });
            found.append_option(matched);
        }
        Ok(ColumnarValue::Array(Arc::new(found.finish())))
    }
}
