//! Prints result tables.

use std::io::{self, Write};

use comfy_table::{CellAlignment, ContentArrangement, Table as Grid, TableComponent, presets};
use kusto::Table;
use serde_json::{Map, Value};

use super::Format;

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
    // No lines between rows: twice as many fit on a screen.
    for line in [
        TableComponent::LeftBorderIntersections,
        TableComponent::HorizontalLines,
        TableComponent::MiddleIntersections,
        TableComponent::RightBorderIntersections,
    ] {
        grid.remove_style(line);
    }
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
    writeln!(out, "{grid}")?;
    let plural = if table.rows.len() == 1 { "" } else { "s" };
    writeln!(out, "{} row{plural}", table.rows.len())
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

    #[test]
    fn a_table_has_a_line_for_each_row() {
        let column = |name: &str, ty: &str| Column { name: name.to_owned(), ty: ty.to_owned() };
        let rows = vec![vec![json!("a"), json!(1)], vec![json!({ "k": null }), json!(20)]];
        let table = Table { name: "T".to_owned(), columns: vec![column("x", "dynamic"), column("n", "long")], rows };
        let mut out = Vec::new();
        write_grid(&mut out, &table).unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|line| !line.starts_with(['─', '═'])).collect();
        assert_eq!(lines, [" x             n", " a             1", " {\"k\":null}   20", "2 rows"]);
        assert_eq!(text.lines().count(), 7);
    }
}
