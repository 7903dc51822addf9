//! `GET /session/qr`: the QR code that is valid now, as a picture or for a terminal.

use std::sync::Arc;

use axum::{
    extract::State,
    http::{
        HeaderMap,
        header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, VARY},
    },
    response::{IntoResponse, Response},
};
use fast_qr::{QRBuilder, QRCode, convert::Builder, convert::svg::SvgBuilder};

use crate::{
    http::{App, caller::Tenant, problem::Problem},
    model::error_code::ErrorCode,
};

/// Pixels for one module of the PNG.
const SCALE: usize = 8;
/// Modules of white around the code (ISO/IEC 18004 asks for four).
const MARGIN: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Png,
    Svg,
    Text,
}

/// `GET /session/qr`: the QR code that is valid now, in the form that `Accept` names.
#[utoipa::path(
    get, path = "/session/qr", tag = "Sessions",
    responses((status = 200, description = "The QR code.", content(
        (Vec<u8> = "image/png"), (String = "image/svg+xml"), (String = "text/plain; charset=utf-8"),
    )))
)]
pub async fn get(State(app): State<Arc<App>>, Tenant(tenant): Tenant, headers: HeaderMap) -> Result<Response, Problem> {
    let snapshot = app.manager.get(&tenant).map(|session| session.snapshot());
    let snapshot = snapshot.ok_or(Problem::session_not_found())?;
    let none = || {
        let message = format!("No QR code waits to be scanned: the session is {}.", snapshot.state.as_str());
        Problem::new(ErrorCode::NoQrCode, message)
    };
    let text = &snapshot.qr.as_ref().ok_or_else(none)?.text;
    let accept = headers.get(ACCEPT).map_or(Ok("*/*"), |accept| accept.to_str()).unwrap_or_default();
    let format = choose(accept).ok_or_else(|| {
        let message = "The QR code can be had as image/png, image/svg+xml or text/plain.";
        Problem::new(ErrorCode::NotAcceptable, message)
    })?;
    let too_long = |error: &dyn std::fmt::Display| Problem::internal(format!("The QR code can't be drawn: {error}"));
    let code = QRBuilder::new(text.as_str()).build().map_err(|error| too_long(&error))?;
    let (content_type, body) = match format {
        Format::Png => ("image/png", png(&code).map_err(|error| too_long(&error))?),
        Format::Svg => ("image/svg+xml", SvgBuilder::default().margin(MARGIN).to_str(&code).into_bytes()),
        Format::Text => ("text/plain; charset=utf-8", code.to_str().into_bytes()),
    };
    Ok(([(CONTENT_TYPE, content_type), (CACHE_CONTROL, "no-store"), (VARY, "Accept")], body).into_response())
}

/// The text that a terminal shows as the QR code of `text`.
pub fn for_terminal(text: &str) -> Option<String> {
    QRBuilder::new(text).build().ok().map(|code| code.to_str())
}

/// The format that an `Accept` header likes best; PNG where it does not mind.
fn choose(accept: &str) -> Option<Format> {
    let mut best: Option<(f32, Format)> = None;
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let format = match parts.next().unwrap_or_default().to_ascii_lowercase().as_str() {
            "*/*" | "image/*" | "image/png" => Format::Png,
            "image/svg+xml" => Format::Svg,
            "text/plain" | "text/*" => Format::Text,
            _ => continue,
        };
        let quality = parts.find_map(|part| part.strip_prefix("q=")).map_or(1.0, |q| q.parse().unwrap_or(0.0));
        if quality > best.map_or(0.0, |(best, _)| best) {
            best = Some((quality, format));
        }
    }
    best.map(|(_, format)| format)
}

fn png(code: &QRCode) -> Result<Vec<u8>, png::EncodingError> {
    let side = (code.size + 2 * MARGIN) * SCALE;
    let mut pixels = vec![u8::MAX; side * side];
    for (y, row) in pixels.chunks_exact_mut(side).enumerate() {
        for (x, pixel) in row.iter_mut().enumerate() {
            let module = |at: usize| (at / SCALE).checked_sub(MARGIN).filter(|&at| at < code.size);
            if let (Some(x), Some(y)) = (module(x), module(y))
                && code[y][x].value()
            {
                *pixel = 0;
            }
        }
    }
    let mut bytes = Vec::new();
    let side = u32::try_from(side).unwrap_or(u32::MAX);
    let mut encoder = png::Encoder::new(&mut bytes, side, side);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.write_header()?.write_image_data(&pixels)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accept_header_decides() {
        for (accept, format) in [
            ("*/*", Some(Format::Png)),
            ("image/png", Some(Format::Png)),
            ("IMAGE/SVG+XML", Some(Format::Svg)),
            ("text/plain", Some(Format::Text)),
            ("text/html,image/avif,image/svg+xml;q=0.8,*/*;q=0.5", Some(Format::Svg)),
            ("text/plain;q=0.3, image/png;q=0.9", Some(Format::Png)),
            ("application/json", None),
            ("image/png;q=0", None),
            ("", None),
        ] {
            assert_eq!(choose(accept), format, "{accept}");
        }
    }

    #[test]
    fn the_picture_has_the_code_in_it() {
        let code = QRBuilder::new("2@abc,def").build().unwrap();
        let bytes = png(&code).unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        let side = info.width as usize;
        assert_eq!(side, (code.size + 2 * MARGIN) * SCALE);
        for (y, x) in [(0, 0), (6, 6), (7, 7), (10, 4)] {
            let at = ((y + MARGIN) * SCALE + SCALE / 2) * side + (x + MARGIN) * SCALE + SCALE / 2;
            assert_eq!(pixels[at] == 0, code[y][x].value(), "module {y},{x}");
        }
        assert!(pixels[..side * MARGIN * SCALE].iter().all(|&pixel| pixel == u8::MAX), "white around it");
    }
}
