//! The binary: trusts WhatsApp's servers and no others.

use std::process::ExitCode;

use clap::Parser;
use whatsapp_service::{Trust, cli, worker};

fn main() -> ExitCode {
    if worker::is_asked() {
        return worker::run();
    }
    cli::run(cli::Cli::parse(), Trust::WhatsAppOnly)
}
