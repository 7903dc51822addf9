//! `docs/configuration.md` is what the code declares: every setting, with its default.

use std::collections::BTreeMap;

use clap::CommandFactory as _;
use whatsapp_service::cli::Cli;

const DOCUMENT: &str = include_str!("../../../docs/configuration.md");

/// What has no default in the code, or one that the table says in words.
const IN_WORDS: [(&str, &str); 8] = [
    ("INTERNAL_SECRET", "none; required"),
    ("ENCRYPTION_KEY", "none"),
    ("WEBHOOK_URL", "none"),
    ("WEBHOOK_SECRET", "none; required with `WEBHOOK_URL`"),
    ("WHATSAPP_URL", "WhatsApp's own"),
    ("WHATSAPP_VERSION", "looked up"),
    ("MAX_CONNECTIONS", "a quarter of the files that the process may open, 8 to 4096"),
    ("DATA_DIR", "`./sessions` (`/data` in the image)"),
];

/// The words between back quotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn the_table_of_settings_is_what_the_code_declares() {
    let rows = DOCUMENT.lines().filter_map(|line| line.strip_prefix("| `"));
    let mut written = BTreeMap::new();
    for row in rows {
        let cells: Vec<_> = row.split(" | ").collect();
        let names = format!("`{}", cells[0]);
        quoted(&names).for_each(|name| assert!(written.insert(name.to_owned(), cells[1]).is_none(), "{name} twice"));
    }
    // Only the commands that call a service know it.
    assert_eq!(written.remove("WHATSAPP_SERVICE_URL"), Some("`http://127.0.0.1:PORT`"));
    for setting in Cli::command().get_arguments().filter(|setting| !setting.is_hide_set()) {
        let Some(name) = setting.get_env().map(|name| name.to_string_lossy().into_owned()) else { continue };
        if name.ends_with("_FILE") {
            assert!(DOCUMENT.contains(&format!("`{name}`")), "{name} is not in docs/configuration.md");
            continue;
        }
        let shown = written.remove(&name).unwrap_or_else(|| panic!("{name} has no row in docs/configuration.md"));
        match IN_WORDS.iter().find(|(other, _)| *other == name) {
            Some((_, words)) => assert_eq!(shown, *words, "{name}"),
            None => {
                let default: Vec<_> =
                    setting.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
                assert_eq!(shown, format!("`{}`", default.join(" ")), "{name}");
            }
        }
    }
    assert!(written.is_empty(), "no such settings: {written:?}");
}
