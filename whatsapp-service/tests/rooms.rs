//! The house: which room a file stands in, and which rooms it may name. `docs/design.md` draws it.
//!
//! An import leads down, never up, so that there are no circles; only the rooms that are made for it name the library; and
//! a file stays short enough to be read at once.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use syn::{UseTree, visit::Visit};

/// From the ground up. What is not in here stands on top: the binary and its settings on the command line.
const ROOMS: [&str; 13] = [
    "util", "model", "config", "metrics", "net", "store", "signal", "whatsapp", "media", "session", "manager",
    "webhooks", "http",
];
/// The crates of the library, and the rooms that may name them.
const LIBRARY: [&str; 4] = ["whatsapp_rust", "wacore", "wacore_binary", "waproto"];
const SPEAK_THE_LIBRARY: [&str; 2] = ["signal", "whatsapp"];
/// How many lines a file may have without a sentence at its head that says why (`Long:`), and how many in the middle.
const LONGEST: usize = 400;
const MEDIAN: usize = 200;

struct File {
    name: String,
    /// Where its module stands, such as `session::outbox`.
    module: Vec<String>,
    text: String,
    /// What it names of this crate, outside of tests.
    named: BTreeSet<Vec<String>>,
    names_library: bool,
}

impl File {
    fn room(&self) -> Option<usize> {
        room(self.module.first()?)
    }
}

fn room(name: &str) -> Option<usize> {
    ROOMS.iter().position(|room| *room == name)
}

/// Collects what is named in a file, but for its tests.
struct Names<'a> {
    module: &'a [String],
    named: BTreeSet<Vec<String>>,
    names_library: bool,
}

impl Names<'_> {
    fn path(&mut self, path: &[String]) {
        let Some((first, rest)) = path.split_first() else { return };
        if LIBRARY.contains(&first.as_str()) {
            self.names_library = true;
        }
        let above = path.iter().take_while(|part| *part == "super").count();
        let start = match first.as_str() {
            "crate" => Vec::new(),
            "self" => self.module.to_vec(),
            "super" => self.module[..self.module.len().saturating_sub(above)].to_vec(),
            _ => return,
        };
        let rest = if first == "super" { &path[above..] } else { rest };
        // `pub(crate)` is a path as well.
        if !rest.is_empty() {
            self.named.insert([start, rest.to_vec()].concat());
        }
    }

    fn tree(&mut self, before: &[String], tree: &UseTree) {
        let with = |name: &syn::Ident| [before, &[name.to_string()]].concat();
        match tree {
            UseTree::Path(path) => self.tree(&with(&path.ident), &path.tree),
            UseTree::Name(name) => self.path(&with(&name.ident)),
            UseTree::Rename(name) => self.path(&with(&name.ident)),
            UseTree::Glob(_) => self.path(before),
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.tree(before, tree)),
        }
    }
}

fn is_for_tests(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg") && attribute.parse_args::<syn::Path>().is_ok_and(|what| what.is_ident("test"))
    })
}

impl<'ast> Visit<'ast> for Names<'_> {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        let attributes = match item {
            syn::Item::Mod(item) => &item.attrs,
            syn::Item::Use(item) => &item.attrs,
            syn::Item::Impl(item) => &item.attrs,
            syn::Item::Fn(item) => &item.attrs,
            _ => return syn::visit::visit_item(self, item),
        };
        if !is_for_tests(attributes) {
            syn::visit::visit_item(self, item);
        }
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        if !is_for_tests(&item.attrs) {
            syn::visit::visit_impl_item_fn(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.tree(&[], &item.tree);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.path(&path.segments.iter().map(|part| part.ident.to_string()).collect::<Vec<_>>());
        syn::visit::visit_path(self, path);
    }
}

/// All files of production code.
fn files() -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    collect(&root, &mut paths);
    paths.into_iter().map(|path| read(&root, &path)).collect()
}

fn collect(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if name != "tests" {
                collect(&path, into);
            }
        } else if name.ends_with(".rs") && name != "tests.rs" {
            into.push(path);
        }
    }
}

fn read(root: &Path, path: &Path) -> File {
    let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
    let mut module: Vec<_> = name.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    module.pop_if(|last| last == "mod");
    if module == ["lib"] || module == ["main"] {
        module.clear();
    }
    let text = fs::read_to_string(path).unwrap();
    let mut names = Names { module: &module, named: BTreeSet::new(), names_library: false };
    names.visit_file(&syn::parse_file(&text).unwrap());
    let (named, names_library) = (names.named, names.names_library);
    File { name, module, text, named, names_library }
}

#[test]
fn an_import_leads_down() {
    let (mut seen, mut up) = (0, Vec::new());
    for file in files() {
        let Some(own) = file.room() else { continue };
        for path in &file.named {
            seen += 1;
            // What stands in no room stands on top.
            let other = path.first().map_or(ROOMS.len(), |first| room(first).unwrap_or(ROOMS.len()));
            if other > own {
                up.push(format!("{} names {}", file.name, path.join("::")));
            }
        }
    }
    assert!(seen > 1000, "only {seen} names were found: this test does not read the code");
    assert!(up.is_empty(), "these lead up:\n{}", up.join("\n"));
}

/// An import names the file that defines the thing: a room re-exports nothing.
#[test]
fn nothing_is_exported_twice() {
    let again: Vec<_> = files()
        .into_iter()
        .filter(|file| !file.module.is_empty())
        .flat_map(|file| {
            let lines: Vec<_> =
                file.text.lines().filter(|line| line.starts_with("pub use ")).map(str::to_owned).collect();
            lines.into_iter().map(move |line| format!("{}: {line}", file.name))
        })
        .collect();
    assert!(again.is_empty(), "{}", again.join("\n"));
}

#[test]
fn only_two_rooms_name_the_library() {
    let names: BTreeMap<_, _> = files().into_iter().map(|file| (file.name.clone(), file)).collect();
    let speak: Vec<_> = names.values().filter(|file| file.names_library).collect();
    assert!(speak.len() > 10, "this test does not read the code");
    let others: Vec<_> = speak
        .into_iter()
        .filter(|file| !file.module.first().is_some_and(|room| SPEAK_THE_LIBRARY.contains(&room.as_str())))
        .map(|file| file.name.as_str())
        .collect();
    assert!(others.is_empty(), "these name the library: {others:?}");
}

#[test]
fn files_can_be_read_at_once() {
    let files = files();
    let mut lengths: Vec<_> = files.iter().map(|file| file.text.lines().count()).collect();
    lengths.sort_unstable();
    let median = lengths[lengths.len() / 2];
    assert!(median < MEDIAN, "the median is {median} lines");
    let is_explained = |file: &&File| {
        let head = file.text.lines().take_while(|line| line.starts_with("//!"));
        head.into_iter().any(|line| line.contains("Long:"))
    };
    let long: Vec<_> = files
        .iter()
        .filter(|file| file.text.lines().count() > LONGEST)
        .filter(|file| !is_explained(file))
        .map(|file| format!("{} has {} lines", file.name, file.text.lines().count()))
        .collect();
    assert!(long.is_empty(), "too long, and no sentence at the head says why (`Long: …`):\n{}", long.join("\n"));
}
