//! DataFusion's session: its functions, our window functions and settings.

use std::sync::Arc;

use datafusion::common::config::Dialect;
use datafusion::execution::SessionState;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::optimizer::{Analyzer, AnalyzerRule, Optimizer, OptimizerRule};
use datafusion::prelude::SessionConfig;

use crate::cross_join::SafeCrossJoins;
use crate::exact;
use crate::functions;
use crate::given::BatchPlanner;
use crate::multiset::CountedSetOperations;
use crate::regexp::RegexpGroups;
use crate::rounding::RoundingCasts;
use crate::window::WindowPlanner;

/// A session with all functions and our settings.
pub(crate) fn session() -> SessionState {
    let mut state = SessionStateBuilder::new_with_default_features()
        .with_config(config())
        .with_relation_planners(vec![Arc::new(WindowPlanner)])
        .with_query_planner(Arc::new(BatchPlanner))
        .with_analyzer_rules(analyzer_rules())
        .with_optimizer_rules(optimizer_rules())
        .build();
    // Registering into a fresh session fails only for functions that it has already.
    let registered = datafusion_functions_json::register_all(&mut state)
        .and_then(|()| functions::register(&mut state))
        .and_then(|()| exact::register(&mut state));
    if let Err(error) = registered {
        unreachable!("functions register once: {error}");
    }
    state
}

/// DataFusion's rules, and ours.
fn analyzer_rules() -> Vec<Arc<dyn AnalyzerRule + Send + Sync>> {
    let mut rules = Analyzer::new().rules;
    rules.push(Arc::new(RoundingCasts::new()));
    rules.push(Arc::new(RegexpGroups));
    rules.push(Arc::new(CountedSetOperations));
    rules
}

/// DataFusion's rules, with one made safe.
fn optimizer_rules() -> Vec<Arc<dyn OptimizerRule + Send + Sync>> {
    let safe = SafeCrossJoins::default();
    let rules = Optimizer::new().rules.into_iter();
    rules.map(|rule| if rule.name() == safe.name() { Arc::new(SafeCrossJoins::default()) } else { rule }).collect()
}

fn config() -> SessionConfig {
    let mut config = SessionConfig::new().with_target_partitions(1).with_create_default_catalog_and_schema(false);
    let options = config.options_mut();
    options.sql_parser.dialect = Dialect::PostgreSQL;
    // Views into shared buffers would pin what they were cut from once they are in state.
    options.sql_parser.map_string_types_to_utf8view = false;
    options.sql_parser.collect_spans = true;
    // Makes now() a timestamp with time zone, as in PostgreSQL.
    options.execution.time_zone = Some("UTC".to_owned());
    // An outer join makes columns nullable that the logical plan took for not nullable; that is no reason to fail.
    options.execution.skip_physical_aggregate_schema_check = true;
    // As joins, scalar subqueries have an incremental rule.
    options.optimizer.enable_physical_uncorrelated_scalar_subquery = false;
    config
}
