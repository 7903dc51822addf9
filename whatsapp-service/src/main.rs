//! The binary: trusts WhatsApp's servers and no others.

use std::process::ExitCode;

use clap::Parser;
use whatsapp_service::{Trust, cli};

fn main() -> ExitCode {
    cli::run(cli::Cli::parse(), Trust::WhatsAppOnly)
}
