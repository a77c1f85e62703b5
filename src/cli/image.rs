//! `unladen image`: what is in the store of images.

use clap::{Args, Subcommand};
use comfy_table::{CellAlignment, Table};

use super::{CliError, Exit, print_line, say};
use crate::image::{Limits, Record, Store};
use crate::units::{Bytes, Unit};

/// Arguments of `image`.
#[derive(Debug, Args)]
pub struct ImageArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: ImageCommand,
}

/// What can be done with images.
#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// Check and unpack an image from disk into the store
    Import(ImportArgs),
    /// List the images of the store
    List(ListArgs),
    /// Remove images, or names of images that have several
    Rm(RemoveArgs),
}

/// Arguments of `image import`.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// An OCI image layout (a folder, or a tar archive of one), or what
    /// `docker save` writes; archives may be gzipped. REF is a name or tag,
    /// needed when several images are inside
    #[arg(value_name = "PATH[:REF]")]
    pub source: String,
    /// Another name for it
    #[arg(long, value_name = "NAME[:TAG]")]
    pub name: Option<String>,
    /// Refuse an image that is larger than this when unpacked
    #[arg(long, value_name = "SIZE", default_value = "64G")]
    pub max_size: Bytes,
    /// Refuse an image with more files and folders than this
    #[arg(long, value_name = "N", default_value = "2000000")]
    pub max_entries: u64,
}

/// Arguments of `image list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `image rm`.
#[derive(Debug, Args)]
pub struct RemoveArgs {
    /// Names, or beginnings of ids of at least four digits
    #[arg(value_name = "IMAGE", required = true)]
    pub images: Vec<String>,
}

/// Carries out `image`.
pub(super) fn image(command: &ImageCommand) -> Result<Exit, CliError> {
    match command {
        ImageCommand::Import(args) => import(args),
        ImageCommand::List(args) => list(args.json),
        ImageCommand::Rm(args) => remove(&args.images),
    }
}

fn import(args: &ImportArgs) -> Result<Exit, CliError> {
    let Bytes(unpacked) = args.max_size;
    let limits = Limits { unpacked, entries: args.max_entries, ..Limits::default() };
    let image = Store::open()?.with_limits(limits).import(&args.source, args.name.as_deref())?;
    for remark in &image.record.remarks {
        say(remark);
    }
    print_line(&format!("{} {}", short(&image.record), image.record.names.join(" ")))?;
    Ok(Exit::Ok)
}

fn list(json: bool) -> Result<Exit, CliError> {
    let records = Store::open()?.list()?;
    if json {
        let text = serde_json::to_string_pretty(&records)
            .map_err(|error| CliError::Output(error.into()))?;
        print_line(&text)?;
        return Ok(Exit::Ok);
    }
    if records.is_empty() {
        say("there are no images; `unladen image import` brings one");
        return Ok(Exit::Ok);
    }
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(["ID", "NAMES", "SIZE", "LAYERS", "CREATED"]);
    for record in &records {
        let names = if record.names.is_empty() { "-".to_owned() } else { record.names.join(" ") };
        table.add_row([
            short(record),
            names,
            Unit::Bytes.human(record.size as f64),
            record.layers.len().to_string(),
            record.created.clone().unwrap_or_else(|| "-".to_owned()),
        ]);
    }
    for column in [2, 3] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    print_line(&table.trim_fmt())?;
    Ok(Exit::Ok)
}

fn remove(images: &[String]) -> Result<Exit, CliError> {
    let store = Store::open()?;
    for name in images {
        match store.remove(name)? {
            Some(record) => print_line(&format!("removed {}", short(&record)))?,
            None => print_line(&format!("removed the name {name}"))?,
        }
    }
    Ok(Exit::Ok)
}

/// The beginning of an id, as people write it.
fn short(record: &Record) -> String {
    record.id.hex().chars().take(12).collect()
}
