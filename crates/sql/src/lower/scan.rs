//! Scans: reading no more of a relation than is needed, down to the fields of its structs.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, DFSchemaRef, Result, ScalarValue};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{Expr, TableScan, lit};
use tidemill_plan::{Bound, ColumnPath, Input, NodeId, Op};

use super::rel::{Base, Rel, node_schema, unique_columns};
use super::{Lower, internal};
use crate::provider::{RelationSource, external};
use crate::{Relation, RelationKind, SqlError};

/// A column, and the fields followed inside it.
pub(super) type Path = (String, Vec<String>);

/// Which path an expression is, if it is nothing but field accesses.
pub(super) fn path_of(expr: &Expr) -> Option<Path> {
    match expr {
        Expr::Column(column) => Some((column.name.clone(), Vec::new())),
        Expr::Alias(alias) => path_of(&alias.expr),
        Expr::ScalarFunction(ScalarFunction { func, args }) if func.name() == "get_field" => {
            let (inner, fields) = args.split_first()?;
            let (column, mut path) = path_of(inner)?;
            for field in fields {
                match field {
                    Expr::Literal(ScalarValue::Utf8(Some(name)) | ScalarValue::Utf8View(Some(name)), _) => {
                        path.push(name.clone());
                    }
                    _ => return None,
                }
            }
            Some((column, path))
        }
        _ => None,
    }
}

/// The type at a path, if it leads through structs only.
fn type_at(columns: &DFSchema, (column, fields): &Path) -> Option<DataType> {
    let index = columns.maybe_index_of_column(&Column::new_unqualified(column))?;
    let mut data_type = columns.field(index).data_type();
    for name in fields {
        let DataType::Struct(inner) = data_type else { return None };
        data_type = inner.iter().find(|f| f.name() == name)?.data_type();
    }
    Some(data_type.clone())
}

/// The paths that expressions use, in order of appearance, without those inside another one.
fn paths_in(columns: &DFSchema, exprs: &[Expr]) -> Result<Vec<Path>> {
    let mut paths: Vec<Path> = Vec::new();
    for expr in exprs {
        expr.apply(|expr| match path_of(expr).filter(|path| type_at(columns, path).is_some()) {
            Some(path) => {
                if !paths.contains(&path) {
                    paths.push(path);
                }
                Ok(TreeNodeRecursion::Jump)
            }
            None => Ok(TreeNodeRecursion::Continue),
        })?;
    }
    let inside = |a: &Path, b: &Path| a.0 == b.0 && a.1.len() > b.1.len() && a.1.starts_with(&b.1);
    let outer = paths.iter().filter(|path| !paths.iter().any(|other| inside(path, other)));
    Ok(outer.cloned().collect())
}

/// Field accesses replaced by the columns that are read.
fn over_paths(expr: Expr, columns: &DFSchema, paths: &[Path], names: &[String]) -> Result<Expr> {
    let replaced = expr.transform_down(|expr| {
        let Some(path) = path_of(&expr).filter(|path| type_at(columns, path).is_some()) else {
            return Ok(Transformed::no(expr));
        };
        let found = paths.iter().position(|p| p.0 == path.0 && path.1.starts_with(&p.1));
        let Some(index) = found else { return Err(internal(format!("{expr} is not read"))) };
        let mut column = Expr::Column(Column::new_unqualified(&names[index]));
        let rest = &path.1[paths[index].1.len()..];
        if !rest.is_empty() {
            let args = std::iter::once(column).chain(rest.iter().map(|name| lit(name.as_str()))).collect();
            let func = datafusion::functions::core::get_field();
            column = Expr::ScalarFunction(ScalarFunction::new_udf(func, args));
        }
        Ok(Transformed::new(column, true, TreeNodeRecursion::Jump))
    })?;
    Ok(replaced.data)
}

/// What has to be read of a relation for some expressions over its columns, and these expressions
/// over what is read.
pub(crate) struct Reading {
    /// What is read.
    pub(crate) paths: Vec<ColumnPath>,
    /// As columns.
    pub(crate) columns: DFSchemaRef,
    /// The expressions over `columns`.
    pub(crate) exprs: Vec<Expr>,
}

/// See [`Reading`]. Columns in expressions are unqualified names of `columns`.
pub(crate) fn reading(columns: &DFSchema, exprs: Vec<Expr>) -> Result<Reading> {
    let paths = paths_in(columns, &exprs)?;
    let mut names = Vec::new();
    let mut types = Vec::new();
    for path in &paths {
        let name = std::iter::once(&path.0).chain(&path.1).map(String::as_str).collect::<Vec<_>>().join(".");
        names.push(name);
        types.push(type_at(columns, path).ok_or_else(|| internal(format!("no field {path:?}")))?);
    }
    let read = unique_columns(names.iter().map(String::as_str).zip(types))?;
    let names: Vec<_> = read.fields().iter().map(|f| f.name().clone()).collect();
    let exprs = exprs.into_iter().map(|e| over_paths(e, columns, &paths, &names)).collect::<Result<_>>()?;
    let paths = paths
        .into_iter()
        .map(|(column, fields)| {
            let index = columns.maybe_index_of_column(&Column::new_unqualified(&column));
            Ok(ColumnPath { column: index.ok_or_else(|| internal(format!("no column {column}")))?, fields })
        })
        .collect::<Result<_>>()?;
    Ok(Reading { paths, columns: read, exprs })
}

impl Lower<'_> {
    /// A scan; what it reads stays open.
    pub(super) fn scan(&mut self, scan: &TableScan) -> Result<Rel> {
        let Some(source) = scan.source.downcast_ref::<RelationSource>() else {
            let message = format!("{} cannot be read by a view", scan.table_name);
            return Err(external(SqlError::not_supported(message)));
        };
        let relation = source.relation.clone();
        if relation.kind == RelationKind::System && relation.namespace != "public" {
            let message = format!("a view cannot read {}.{}", relation.namespace, relation.name);
            let error = SqlError::not_supported(message).hint("System catalogs have no changes to follow.");
            return Err(external(error));
        }
        let fields = relation.schema.fields();
        if let Some(field) = relation.bounds.first().and_then(|b| fields.get(b.column)) {
            self.time_column.get_or_insert_with(|| field.name().clone());
        }
        let columns = unique_columns(fields.iter().map(|f| (f.name().as_str(), f.data_type().clone())))?;
        let mut rel = Rel::new(Base::Scan(relation), columns);
        if !scan.filters.is_empty() {
            let schema = DFSchema::try_from_qualified_schema(scan.table_name.clone(), &scan.source.schema())?;
            rel = self.filter(rel, &schema, &scan.filters)?;
        }
        if let Some(projection) = &scan.projection {
            rel.exprs = projection.iter().map(|i| rel.exprs[*i].clone()).collect();
        }
        Ok(rel)
    }

    /// Reads what `exprs` need.
    pub(super) fn scan_node(
        &mut self,
        relation: &Arc<Relation>,
        columns: &DFSchema,
        exprs: Vec<Expr>,
    ) -> Result<(NodeId, DFSchemaRef, Vec<Expr>)> {
        let read = reading(columns, exprs)?;
        let schema = node_schema(read.columns.fields().iter().map(|f| (f.name().as_str(), f.data_type().clone())))?;
        let bound = |path: &ColumnPath| {
            relation.bounds.iter().find(|b| path.fields.is_empty() && b.column == path.column).map(|b| b.offset)
        };
        let bounds = read.paths.iter().enumerate();
        let bounds = bounds.filter_map(|(column, p)| Some(Bound { column, offset: bound(p)? })).collect();
        let input = Input { relation: relation.id, name: relation.name.clone(), columns: read.paths };
        let number = self.input_number(input);
        let node = self.push(Op::Input(number), Vec::new(), schema, relation.append_only, bounds);
        Ok((node, read.columns, read.exprs))
    }

    /// The place of an input among the dataflow's; equal ones share it.
    fn input_number(&mut self, input: Input) -> usize {
        let same = |other: &Input| other.relation == input.relation && other.columns == input.columns;
        match self.inputs.iter().position(same) {
            Some(number) => number,
            None => {
                self.inputs.push(input);
                self.inputs.len() - 1
            }
        }
    }
}
