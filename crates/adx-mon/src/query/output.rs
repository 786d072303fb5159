//! Prints result tables.

use std::io::{self, Write};

use comfy_table::{CellAlignment, ContentArrangement, Table as Grid, TableComponent, presets};
use kusto::Table;
use serde_json::{Map, Value};

use super::Format;

/// Lines of a grid that are no rows: the header and the lines around it and the rows.
const FRAME_LINES: usize = 4;

/// Writes a result in the format asked for.
pub(super) fn write(out: &mut impl Write, table: &Table, format: Format) -> io::Result<()> {
    match format {
        Format::Table => write_grid(out, table),
        Format::Csv => write_csv(out, table),
        Format::Json => write_json(out, table),
    }
}

fn write_grid(out: &mut impl Write, table: &Table) -> io::Result<()> {
    let mut grid = Grid::new();
    grid.load_preset(presets::UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
    grid.set_header(table.columns.iter().map(|column| &column.name));
    for row in &table.rows {
        grid.add_row(row.iter().map(text));
    }
    for (index, column) in table.columns.iter().enumerate() {
        if matches!(column.ty.as_str(), "int" | "long" | "real" | "decimal")
            && let Some(column) = grid.column_mut(index)
        {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    writeln!(out, "{}", compact(&mut grid, table.rows.len()))?;
    let plural = if table.rows.len() == 1 { "" } else { "s" };
    writeln!(out, "{} row{plural}", table.rows.len())
}

/// The grid without lines between its rows, unless a row takes several lines and would run into the next.
fn compact(grid: &mut Grid, rows: usize) -> String {
    let with_lines = grid.current_style_as_preset();
    for line in [
        TableComponent::LeftBorderIntersections,
        TableComponent::HorizontalLines,
        TableComponent::MiddleIntersections,
        TableComponent::RightBorderIntersections,
    ] {
        grid.remove_style(line);
    }
    let text = grid.to_string();
    if text.lines().count() <= rows + FRAME_LINES {
        return text;
    }
    grid.load_preset(&with_lines).to_string()
}

fn write_csv(out: &mut impl Write, table: &Table) -> io::Result<()> {
    let mut writer = csv::Writer::from_writer(out);
    writer.write_record(table.columns.iter().map(|column| &column.name))?;
    for row in &table.rows {
        writer.write_record(row.iter().map(text))?;
    }
    writer.flush()
}

fn write_json(out: &mut impl Write, table: &Table) -> io::Result<()> {
    for row in &table.rows {
        let fields: Map<String, Value> = table.columns.iter().map(|column| column.name.clone()).zip(row.iter().cloned()).collect();
        serde_json::to_writer(&mut *out, &fields)?;
        writeln!(out)?;
    }
    Ok(())
}

/// A cell as text: strings bare, null empty, dynamic values as JSON.
fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use kusto::Column;
    use serde_json::json;

    use super::*;

    fn grid(rows: Vec<Vec<Value>>) -> Vec<String> {
        let column = |name: &str, ty: &str| Column { name: name.to_owned(), ty: ty.to_owned() };
        let table = Table { name: "T".to_owned(), columns: vec![column("x", "dynamic"), column("n", "long")], rows };
        let mut out = Vec::new();
        write_grid(&mut out, &table).unwrap();
        String::from_utf8(out).unwrap().lines().map(|line| line.trim_end().to_owned()).collect()
    }

    fn is_rule(line: &str) -> bool {
        line.starts_with(['─', '═'])
    }

    #[test]
    fn a_table_has_a_line_for_each_row() {
        let lines = grid(vec![vec![json!("a"), json!(1)], vec![json!({ "k": null }), json!(20)]]);
        let text: Vec<&String> = lines.iter().filter(|line| !is_rule(line)).collect();
        assert_eq!(text, [" x             n", " a             1", " {\"k\":null}   20", "2 rows"]);
        assert_eq!(lines.len(), 7);
    }

    #[test]
    fn rows_of_several_lines_are_kept_apart() {
        let lines = grid(vec![vec![json!("a\nb"), json!(1)], vec![json!("c"), json!(2)]]);
        assert_eq!(lines.iter().filter(|line| is_rule(line)).count(), 4, "{lines:?}");
    }
}
