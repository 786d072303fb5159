//! Loading the catalogue, and changing it: each method changes the transaction and the image alike.

use std::path::Path;
use std::sync::Arc;

use kql::Type;
use kql::binder::{EntityReference, parse_entities};
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::{Catalog, CatalogError, Database, Function, Image, StoredMapping, Table, TableColumn, TableId};

/// A change in progress.
pub(crate) struct Edit<'a> {
    pub(super) catalog: &'a Catalog,
    pub(super) transaction: &'a Transaction<'a>,
    image: Image,
}

type Changed = Result<(), CatalogError>;

impl<'a> Edit<'a> {
    pub(super) fn new(catalog: &'a Catalog, transaction: &'a Transaction<'a>, image: Image) -> Self {
        Edit { catalog, transaction, image }
    }

    pub(super) fn into_image(self) -> Image {
        self.image
    }

    /// The image as changed so far.
    pub(crate) fn image(&self) -> &Image {
        &self.image
    }

    pub(super) fn execute(&self, action: &'static str, sql: &str, values: impl rusqlite::Params) -> Changed {
        let run = || self.transaction.prepare_cached(sql)?.execute(values);
        run().map(drop).map_err(|source| self.catalog.failed(action, source))
    }

    fn database_mut(&mut self, name: &str) -> Result<&mut Database, CatalogError> {
        match self.image.databases.get_mut(name) {
            Some(database) => Ok(Arc::make_mut(database)),
            None => Err(self.catalog.damaged(format!("database {name} is missing"))),
        }
    }

    /// Creates a database that does not exist.
    pub(crate) fn create_database(&mut self, name: &str, now: i64) -> Changed {
        let sql = "INSERT INTO databases (name, created) VALUES (?1, ?2)";
        self.execute("creating a database", sql, params![name, now])?;
        let database = Database {
            id: self.transaction.last_insert_rowid(),
            name: name.into(),
            created: now,
            tables: Default::default(),
            functions: Default::default(),
            policies: Default::default(),
            entity_groups: Default::default(),
        };
        self.image.databases.insert(database.name.clone(), Arc::new(database));
        Ok(())
    }

    /// Drops a database with all it holds.
    pub(crate) fn drop_database(&mut self, name: &str) -> Changed {
        let id = self.database_mut(name)?.id;
        self.execute("dropping a database", "DELETE FROM databases WHERE id = ?1", [id])?;
        self.execute("dropping its extents", "DELETE FROM extents WHERE table_id NOT IN (SELECT id FROM tables)", [])?;
        self.image.databases.remove(name);
        Ok(())
    }

    /// Stores a new table (id 0) or all properties of a known one; `table.database` is the exact name of its database.
    pub(crate) fn put_table(&mut self, mut table: Table) -> Result<Arc<Table>, CatalogError> {
        let database = self.database_mut(&table.database)?.id;
        table.version += 1;
        if table.id.0 == 0 {
            let sql = "INSERT INTO tables (database_id, name, version, next_column, folder, docstring, created)
                       VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
            let values = params![database, table.name, table.version, table.next_column, table.folder, table.docstring, table.created];
            self.execute("creating a table", sql, values)?;
            table.id = TableId(self.transaction.last_insert_rowid());
        } else {
            let sql = "UPDATE tables SET name = ?2, version = ?3, next_column = ?4, folder = ?5, docstring = ?6 WHERE id = ?1";
            let values = params![table.id.0, table.name, table.version, table.next_column, table.folder, table.docstring];
            self.execute("altering a table", sql, values)?;
            self.execute("altering columns", "DELETE FROM columns WHERE table_id = ?1", [table.id.0])?;
        }
        for (position, column) in table.columns.iter().enumerate() {
            let sql = "INSERT INTO columns (table_id, id, position, name, type) VALUES (?1, ?2, ?3, ?4, ?5)";
            let values = params![table.id.0, column.id, position as i64, column.name, column.ty.name()];
            self.execute("storing a column", sql, values)?;
        }
        let table = Arc::new(table);
        let tables = &mut self.database_mut(&table.database)?.tables;
        tables.retain(|_, other| other.id != table.id);
        tables.insert(table.name.clone(), table.clone());
        Ok(table)
    }

    /// Drops a table and its extents.
    pub(crate) fn drop_table(&mut self, table: &Table) -> Changed {
        self.execute("dropping a table", "DELETE FROM tables WHERE id = ?1", [table.id.0])?;
        self.database_mut(&table.database)?.tables.remove(&table.name);
        Ok(())
    }

    /// Creates or replaces a stored function.
    pub(crate) fn put_function(&mut self, database: &str, function: Function) -> Changed {
        let id = self.database_mut(database)?.id;
        let sql = "INSERT OR REPLACE INTO functions (database_id, name, parameters, body, folder, docstring, view)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
        let Function { name, parameters, body, folder, docstring, view } = &function;
        let values = params![id, name, parameters, body, folder, docstring, view];
        self.execute("storing a function", sql, values)?;
        self.database_mut(database)?.functions.insert(function.name.as_str().into(), Arc::new(function));
        Ok(())
    }

    /// Drops a stored function.
    pub(crate) fn drop_function(&mut self, database: &str, name: &str) -> Changed {
        let id = self.database_mut(database)?.id;
        let sql = "DELETE FROM functions WHERE database_id = ?1 AND name = ?2";
        self.execute("dropping a function", sql, params![id, name])?;
        self.database_mut(database)?.functions.remove(name);
        Ok(())
    }

    /// Creates or replaces an entity group.
    pub(crate) fn put_entity_group(&mut self, database: &str, name: &str, entities: Vec<EntityReference>) -> Changed {
        let id = self.database_mut(database)?.id;
        let texts: Vec<&str> = entities.iter().map(|entity| entity.text.as_str()).collect();
        let sql = "INSERT OR REPLACE INTO entity_groups (database_id, name, entities) VALUES (?1, ?2, ?3)";
        self.execute("storing an entity group", sql, params![id, name, texts.join(", ")])?;
        self.database_mut(database)?.entity_groups.insert(name.to_owned(), entities);
        Ok(())
    }

    /// Drops an entity group.
    pub(crate) fn drop_entity_group(&mut self, database: &str, name: &str) -> Changed {
        let id = self.database_mut(database)?.id;
        let sql = "DELETE FROM entity_groups WHERE database_id = ?1 AND name = ?2";
        self.execute("dropping an entity group", sql, params![id, name])?;
        self.database_mut(database)?.entity_groups.remove(name);
        Ok(())
    }

    /// Creates or replaces an ingestion mapping.
    pub(crate) fn put_mapping(&mut self, table: &Table, kind: &str, name: &str, json: &str, now: i64) -> Changed {
        let sql = "INSERT OR REPLACE INTO mappings (table_id, kind, name, mapping, updated) VALUES (?1, ?2, ?3, ?4, ?5)";
        self.execute("storing a mapping", sql, params![table.id.0, kind, name, json, now])?;
        let mapping = Arc::new(StoredMapping { json: json.to_owned(), updated: now });
        self.edit_table(table, |table| drop(table.mappings.insert((kind.to_owned(), name.to_owned()), mapping)))
    }

    /// Drops an ingestion mapping.
    pub(crate) fn drop_mapping(&mut self, table: &Table, kind: &str, name: &str) -> Changed {
        let sql = "DELETE FROM mappings WHERE table_id = ?1 AND kind = ?2 AND name = ?3";
        self.execute("dropping a mapping", sql, params![table.id.0, kind, name])?;
        self.edit_table(table, |table| drop(table.mappings.remove(&(kind.to_owned(), name.to_owned()))))
    }

    /// Sets or (with `None`) deletes a table's policy.
    pub(crate) fn set_table_policy(&mut self, table: &Table, kind: &str, policy: Option<&str>) -> Changed {
        match policy {
            Some(policy) => {
                let sql = "INSERT OR REPLACE INTO table_policies (table_id, kind, policy) VALUES (?1, ?2, ?3)";
                self.execute("storing a policy", sql, params![table.id.0, kind, policy])?;
                self.edit_table(table, |table| drop(table.policies.insert(kind.to_owned(), policy.to_owned())))
            }
            None => {
                let sql = "DELETE FROM table_policies WHERE table_id = ?1 AND kind = ?2";
                self.execute("deleting a policy", sql, params![table.id.0, kind])?;
                self.edit_table(table, |table| drop(table.policies.remove(kind)))
            }
        }
    }

    /// Sets or (with `None`) deletes a database's policy.
    pub(crate) fn set_database_policy(&mut self, database: &str, kind: &str, policy: Option<&str>) -> Changed {
        let id = self.database_mut(database)?.id;
        match policy {
            Some(policy) => {
                let sql = "INSERT OR REPLACE INTO database_policies (database_id, kind, policy) VALUES (?1, ?2, ?3)";
                self.execute("storing a policy", sql, params![id, kind, policy])?;
                self.database_mut(database)?.policies.insert(kind.to_owned(), policy.to_owned());
            }
            None => {
                let sql = "DELETE FROM database_policies WHERE database_id = ?1 AND kind = ?2";
                self.execute("deleting a policy", sql, params![id, kind])?;
                self.database_mut(database)?.policies.remove(kind);
            }
        }
        Ok(())
    }

    /// Sets or (with `None`) deletes a policy of the whole.
    pub(crate) fn set_cluster_policy(&mut self, kind: &str, policy: Option<&str>) -> Changed {
        match policy {
            Some(policy) => {
                let sql = "INSERT OR REPLACE INTO cluster_policies (kind, policy) VALUES (?1, ?2)";
                self.execute("storing a policy", sql, params![kind, policy])?;
                self.image.policies.insert(kind.to_owned(), policy.to_owned());
            }
            None => {
                self.execute("deleting a policy", "DELETE FROM cluster_policies WHERE kind = ?1", [kind])?;
                self.image.policies.remove(kind);
            }
        }
        Ok(())
    }

    fn edit_table(&mut self, table: &Table, change: impl FnOnce(&mut Table)) -> Changed {
        if let Some(stored) = self.database_mut(&table.database)?.tables.get_mut(&table.name) {
            change(Arc::make_mut(stored));
        }
        Ok(())
    }
}

/// Reads the whole image.
pub(super) fn load(connection: &Connection, path: &Path) -> Result<Image, CatalogError> {
    let failed = |source| CatalogError::Sqlite { action: "loading", path: path.to_owned(), source };
    let policies = load_cluster_policies(connection).map_err(failed)?;
    let mut image = Image { policies, ..Image::default() };
    for database in load_databases(connection).map_err(failed)? {
        image.databases.insert(database.name.clone(), Arc::new(database));
    }
    let unknown: Option<String> = connection
        .query_row("SELECT type FROM columns WHERE type NOT IN ('bool','int','long','real','decimal','string','datetime','timespan','guid','dynamic')", [], |row| row.get(0))
        .optional()
        .map_err(failed)?;
    match unknown {
        Some(ty) => Err(CatalogError::Damaged { path: path.to_owned(), what: format!("column type {ty:?} is unknown") }),
        None => Ok(image),
    }
}

fn load_databases(connection: &Connection) -> rusqlite::Result<Vec<Database>> {
    let mut databases = Vec::new();
    let mut statement = connection.prepare("SELECT id, name, created FROM databases ORDER BY name")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get::<_, String>(1)?, row.get(2)?)))?;
    for row in rows {
        let (id, name, created) = row?;
        let name: Arc<str> = name.into();
        let mut database = Database {
            id,
            name: name.clone(),
            created,
            tables: Default::default(),
            functions: Default::default(),
            policies: load_policies(connection, "SELECT kind, policy FROM database_policies WHERE database_id = ?1", id)?,
            entity_groups: load_entity_groups(connection, id)?,
        };
        for table in load_tables(connection, id, &name)? {
            database.tables.insert(table.name.clone(), Arc::new(table));
        }
        for function in load_functions(connection, id)? {
            database.functions.insert(function.name.as_str().into(), Arc::new(function));
        }
        databases.push(database);
    }
    Ok(databases)
}

fn load_cluster_policies(connection: &Connection) -> rusqlite::Result<std::collections::BTreeMap<String, String>> {
    let mut statement = connection.prepare("SELECT kind, policy FROM cluster_policies")?;
    statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

fn load_policies(connection: &Connection, sql: &str, id: i64) -> rusqlite::Result<std::collections::BTreeMap<String, String>> {
    let mut statement = connection.prepare_cached(sql)?;
    statement.query_map([id], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

fn load_tables(connection: &Connection, database_id: i64, database: &Arc<str>) -> rusqlite::Result<Vec<Table>> {
    let mut tables = Vec::new();
    let sql = "SELECT id, name, version, next_column, folder, docstring, created FROM tables WHERE database_id = ?1";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([database_id])?;
    while let Some(row) = rows.next()? {
        let id: i64 = row.get(0)?;
        tables.push(Table {
            id: TableId(id),
            database: database.clone(),
            name: row.get::<_, String>(1)?.into(),
            columns: load_columns(connection, id)?,
            next_column: row.get(3)?,
            version: row.get(2)?,
            folder: row.get(4)?,
            docstring: row.get(5)?,
            created: row.get(6)?,
            mappings: load_mappings(connection, id)?,
            policies: load_policies(connection, "SELECT kind, policy FROM table_policies WHERE table_id = ?1", id)?,
        });
    }
    Ok(tables)
}

fn load_columns(connection: &Connection, table: i64) -> rusqlite::Result<Vec<TableColumn>> {
    let mut statement = connection.prepare_cached("SELECT id, name, type FROM columns WHERE table_id = ?1 ORDER BY position")?;
    let columns = statement.query_map([table], |row| {
        // an unknown type is reported by `load`
        let ty = Type::parse(&row.get::<_, String>(2)?).unwrap_or(Type::String);
        Ok(TableColumn { id: row.get(0)?, name: row.get(1)?, ty })
    })?;
    columns.collect()
}

type Mappings = std::collections::BTreeMap<(String, String), Arc<StoredMapping>>;

fn load_mappings(connection: &Connection, table: i64) -> rusqlite::Result<Mappings> {
    let sql = "SELECT kind, name, mapping, updated FROM mappings WHERE table_id = ?1";
    let mut statement = connection.prepare_cached(sql)?;
    let mappings = statement.query_map([table], |row| {
        let mapping = StoredMapping { json: row.get(2)?, updated: row.get(3)? };
        Ok(((row.get(0)?, row.get(1)?), Arc::new(mapping)))
    })?;
    mappings.collect()
}

fn load_functions(connection: &Connection, database: i64) -> rusqlite::Result<Vec<Function>> {
    let sql = "SELECT name, parameters, body, folder, docstring, view FROM functions WHERE database_id = ?1";
    let mut statement = connection.prepare_cached(sql)?;
    let functions = statement.query_map([database], |row| {
        Ok(Function {
            name: row.get(0)?,
            parameters: row.get(1)?,
            body: row.get(2)?,
            folder: row.get(3)?,
            docstring: row.get(4)?,
            view: row.get(5)?,
        })
    })?;
    functions.collect()
}

fn load_entity_groups(
    connection: &Connection,
    database: i64,
) -> rusqlite::Result<std::collections::BTreeMap<String, Vec<EntityReference>>> {
    let mut statement = connection.prepare_cached("SELECT name, entities FROM entity_groups WHERE database_id = ?1")?;
    let groups = statement.query_map([database], |row| {
        let (name, text): (String, String) = (row.get(0)?, row.get(1)?);
        // what is stored was read once already: it is damaged, or of a newer version
        let entities = parse_entities(&text).inspect_err(|error| {
            tracing::error!(name, error = error.message, "an entity group cannot be read: it is empty; define it again");
        });
        Ok((name, entities.unwrap_or_default()))
    })?;
    groups.collect()
}
