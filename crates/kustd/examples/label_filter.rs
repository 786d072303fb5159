//! Measures `Labels.host == "…"` over many samples: writes them as one Parquet file with a dictionary of label sets,
//! then times a few queries through the engine.
//!
//! `cargo run --release -p kustd --example label_filter [samples] [series]`

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use datafusion::arrow::array::{ArrayRef, DictionaryArray, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::{ListingOptions, ListingTable, ListingTableConfig, ListingTableUrl};
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::file::properties::WriterProperties;
use kql::{BindOptions, Catalog, Column, StoredFunction, TableSchema, Type};
use kustd::engine::{QueryLimits, TableSource, run};

const BATCH: usize = 65_536;
const ROUNDS: usize = 5;
/// 2026-01-01
const START: i64 = 639_028_224_000_000_000;

const QUERIES: &[&str] = &[
    "Samples | count",
    "Samples | where Labels.host == 'host-7' | count",
    "Samples | where Labels.host == 'host-7' | summarize avg(Value) by bin(Timestamp, 1h)",
    "Samples | where Labels.absent == 'x' | count",
    "Samples | summarize count() by tostring(Labels.host) | count",
    "Samples | summarize max(Value) by SeriesId | count",
];

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let samples: usize = args.next().map_or(Ok(10_000_000), |n| n.parse()).context("reading the number of samples")?;
    let series: usize = args.next().map_or(Ok(20_000), |n| n.parse()).context("reading the number of series")?;
    let folder = std::env::temp_dir().join(format!("label_filter-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let written = measure(&folder, samples, series).await;
    std::fs::remove_dir_all(&folder)?;
    written
}

async fn measure(folder: &Path, samples: usize, series: usize) -> anyhow::Result<()> {
    let file = folder.join("samples.parquet");
    let begun = Instant::now();
    write(&file, samples, series)?;
    let bytes = std::fs::metadata(&file)?.len();
    println!("{samples} samples of {series} series: {} MB, written in {:.1?}", bytes >> 20, begun.elapsed());
    let options = ListingOptions::new(Arc::new(ParquetFormat::default()));
    let url = ListingTableUrl::parse(file.to_str().context("the temporary folder is not UTF-8")?)?;
    let config = ListingTableConfig::new(url).with_listing_options(options).with_schema(schema());
    let source = Arc::new(Samples(Arc::new(ListingTable::try_new(config)?)));
    for text in QUERIES {
        let query = kql::bind(text, &Names, &BindOptions { now: START, database: "db".into(), parameters: BTreeMap::new() })
            .map_err(|diagnostics| anyhow::anyhow!("{text}: {diagnostics:?}"))?;
        let mut times = Vec::new();
        let mut rows = 0;
        for _ in 0..ROUNDS {
            let begun = Instant::now();
            let tables = run(&query, source.clone(), QueryLimits::new(START)).await?;
            times.push(begun.elapsed());
            rows = tables[0].batches.iter().map(RecordBatch::num_rows).sum();
        }
        times.sort_unstable();
        println!("{:>10.1?} median, {:>10.1?} best, {rows} rows: {text}", times[ROUNDS / 2], times[0]);
    }
    Ok(())
}

fn schema() -> SchemaRef {
    let labels = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    Arc::new(Schema::new(vec![
        Field::new("Timestamp", DataType::Int64, true),
        Field::new("SeriesId", DataType::Int64, true),
        Field::new("Labels", labels, true),
        Field::new("Value", DataType::Float64, true),
    ]))
}

/// Series take turns, as scrapes of many targets arrive.
fn write(file: &Path, samples: usize, series: usize) -> anyhow::Result<()> {
    let label_set = |n: usize| {
        format!(
            r#"{{"cluster":"prod-{}","container":"app","host":"host-{}","namespace":"team-{}","pod":"app-{n}-x7k2p","region":"eastus","job":"kubernetes-pods"}}"#,
            n % 3,
            n % 500,
            n % 40
        )
    };
    let labels: ArrayRef = Arc::new(StringArray::from_iter_values((0..series).map(label_set)));
    // Else the writer falls back to plain values when the dictionary page is full.
    let properties = WriterProperties::builder().set_dictionary_page_size_limit(64 << 20).build();
    let mut writer = ArrowWriter::try_new(std::fs::File::create(file)?, schema(), Some(properties))?;
    for first in (0..samples).step_by(BATCH) {
        let rows = first..samples.min(first + BATCH);
        let keys = Int32Array::from_iter_values(rows.clone().map(|row| (row % series) as i32));
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from_iter_values(rows.clone().map(|row| START + (row / series) as i64 * 150_000_000))),
            Arc::new(Int64Array::from_iter_values(rows.clone().map(|row| (row % series) as i64 * 7_919))),
            Arc::new(DictionaryArray::new(keys, labels.clone())),
            Arc::new(Float64Array::from_iter_values(rows.map(|row| (row % 1_000) as f64 / 8.0))),
        ];
        writer.write(&RecordBatch::try_new(schema(), columns)?)?;
    }
    writer.close()?;
    Ok(())
}

struct Samples(Arc<ListingTable>);

impl TableSource for Samples {
    fn scan(&self, _: &str, _: &str) -> Option<Arc<dyn TableProvider>> {
        Some(Arc::<ListingTable>::clone(&self.0))
    }
}

struct Names;

impl Catalog for Names {
    fn table(&self, _: Option<&str>, name: &str) -> Option<TableSchema> {
        let columns = vec![
            Column::new("Timestamp", Type::DateTime),
            Column::new("SeriesId", Type::Long),
            Column::new("Labels", Type::Dynamic),
            Column::new("Value", Type::Real),
        ];
        (name == "Samples").then(|| TableSchema { database: "db".into(), name: name.into(), columns })
    }

    fn function(&self, _: Option<&str>, _: &str) -> Option<StoredFunction> {
        None
    }

    fn tables(&self, _: Option<&str>, _: &str) -> Vec<TableSchema> {
        self.table(None, "Samples").into_iter().collect()
    }

    fn databases(&self) -> Vec<String> {
        vec!["db".into()]
    }
}
