//! Sealing everything with another key: a new file is made of the old one, and takes its place in one step.
//!
//! Until then the old file is as it was, whenever the process ends. Nothing of a value is ever in the new file but what
//! it is to be, so that no plain text is left in a corner of it.

use std::{
    collections::HashMap,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use rusqlite::{
    Connection, params_from_iter,
    types::{Value, ValueRef},
};

use crate::{
    store::{
        data_dir::{create_private_file, io_error},
        error::StoreError,
        sqlite::schema,
    },
    util::seal::{self, Column, Seal},
};

/// Seals all that `from` opens with `to`, and says how many values these were. Nobody else may use the database.
pub fn rekey(path: &Path, from: &Seal, to: &Seal) -> Result<u64, StoreError> {
    let old = schema::open(path, from)?;
    let new_path = new_path(path);
    discard_unfinished(path)?;
    // All of it into the one file, since only one can be replaced in one step.
    let mode: String = old.pragma_update_and_check(None, "journal_mode", "DELETE", |row| row.get(0))?;
    if mode != "delete" {
        return Err(StoreError::Damaged(format!("its journal can't be folded into it and stays {mode}")));
    }
    create_private_file(&new_path)?;
    let copied = copy(&old, &new_path, from, to);
    old.close().map_err(|(_, error)| error)?;
    match copied {
        Ok(values) => {
            fs::rename(&new_path, path).map_err(io_error("replace", path))?;
            sync(path.parent().unwrap_or(path))?;
            Ok(values)
        }
        Err(error) => {
            discard_unfinished(path)?;
            Err(error)
        }
    }
}

/// Removes what a rekeying has left that was interrupted.
pub fn discard_unfinished(path: &Path) -> Result<(), StoreError> {
    let new = new_path(path);
    match fs::remove_file(&new) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(io_error("remove", &new)(source)),
        _ => Ok(()),
    }
}

fn new_path(path: &Path) -> PathBuf {
    path.with_extension("db.rekeyed")
}

fn sync(path: &Path) -> Result<(), StoreError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(io_error("write", path))
}

fn copy(old: &Connection, path: &Path, from: &Seal, to: &Seal) -> Result<u64, StoreError> {
    let new = Connection::open(path)?;
    // It is of no use before it is whole, and goes to the disk as a whole.
    new.pragma_update(None, "page_size", old.pragma_query_value(None, "page_size", |row| row.get::<_, i64>(0))?)?;
    new.pragma_update(None, "journal_mode", "OFF")?;
    new.pragma_update(None, "synchronous", "OFF")?;
    new.execute_batch("BEGIN")?;
    let names = tenants(old)?;
    let mut values = 0;
    for (table, definition) in definitions(old, "type = 'table'")? {
        new.execute_batch(&definition)?;
        match table.as_str() {
            "sealing" => {
                if let Some(proof) = to.proof() {
                    new.execute("INSERT INTO sealing (proof) VALUES (?)", [proof])?;
                }
            }
            _ => {
                values += copy_table(old, &new, &table, |column, row, kept| {
                    let row = identity(&names, column, row)?;
                    let row: Vec<&[u8]> = row.iter().map(Vec::as_slice).collect();
                    let plain = from.open(column, &row, kept)?;
                    Ok(to.seal(column, &row, &plain).into_owned())
                })?
            }
        }
    }
    // Numbers that were used are not used again, also where their rows are gone.
    new.execute("DELETE FROM sqlite_sequence", ())?;
    copy_table(old, &new, "sqlite_sequence", |_, _, kept| Ok(kept.to_vec()))?;
    for (_, definition) in definitions(old, "type <> 'table' AND sql IS NOT NULL")? {
        new.execute_batch(&definition)?;
    }
    new.pragma_update(None, "user_version", schema::version(old)?)?;
    new.execute_batch("COMMIT")?;
    new.close().map_err(|(_, error)| error)?;
    sync(path)?;
    Ok(values)
}

/// Names and definitions of what is in the database.
fn definitions(connection: &Connection, which: &str) -> rusqlite::Result<Vec<(String, String)>> {
    let sql = format!("SELECT name, sql FROM sqlite_schema WHERE {which} AND name NOT LIKE 'sqlite~_%' ESCAPE '~'");
    connection.prepare(&sql)?.query_map((), |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

/// Copies a table's rows, with its sealed values changed. Says how many of these there were.
fn copy_table(
    old: &Connection,
    new: &Connection,
    table: &str,
    change: impl Fn(&'static Column, &HashMap<&str, Value>, &[u8]) -> rusqlite::Result<Vec<u8>>,
) -> rusqlite::Result<u64> {
    let mut rows = old.prepare(&format!("SELECT * FROM \"{table}\""))?;
    let names: Vec<String> = rows.column_names().into_iter().map(str::to_owned).collect();
    let (columns, places) = (format!("\"{}\"", names.join("\", \"")), vec!["?"; names.len()].join(", "));
    let mut insert = new.prepare(&format!("INSERT INTO \"{table}\" ({columns}) VALUES ({places})"))?;
    let sealed: Vec<&'static Column> = seal::COLUMNS.into_iter().filter(|column| column.table == table).collect();
    let (mut rows, mut values) = (rows.query(())?, 0);
    while let Some(row) = rows.next()? {
        let mut copy: HashMap<&str, Value> = HashMap::with_capacity(names.len());
        for name in &names {
            copy.insert(name, row.get(name.as_str())?);
        }
        for &column in &sealed {
            // Nothing is kept where there is nothing.
            if let ValueRef::Text(kept) | ValueRef::Blob(kept) = row.get_ref(column.name)? {
                let changed = change(column, &copy, kept)?;
                copy.insert(column.name, Value::Blob(changed));
                values += 1;
            }
        }
        insert.execute(params_from_iter(names.iter().map(|name| &copy[name.as_str()])))?;
    }
    Ok(values)
}

fn tenants(connection: &Connection) -> rusqlite::Result<HashMap<i64, String>> {
    let mut statement = connection.prepare("SELECT key, name FROM tenants")?;
    statement.query_map((), |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

/// Which row a value belongs to, as those said who sealed it.
fn identity(
    tenants: &HashMap<i64, String>,
    column: &Column,
    row: &HashMap<&str, Value>,
) -> rusqlite::Result<Vec<Vec<u8>>> {
    let part = |name: &&str| match (*name, row.get(name)) {
        ("tenant", Some(Value::Integer(key))) => tenants.get(key).map(|name| name.clone().into_bytes()),
        (_, Some(Value::Integer(number))) => Some(number.to_be_bytes().to_vec()),
        (_, Some(Value::Text(text))) => Some(text.clone().into_bytes()),
        (_, Some(Value::Blob(bytes))) => Some(bytes.clone()),
        _ => None,
    };
    let parts =
        column.row.iter().map(|name| part(name).ok_or_else(|| rusqlite::Error::InvalidColumnName((*name).into())));
    parts.collect()
}
