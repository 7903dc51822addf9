//! What customers send to businesses: what they chose of buttons, lists and templates, orders and products, and the ad that
//! they came from. The names are those of Meta's Cloud API where it has one, in our spelling.

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use whatsapp_rust::waproto::whatsapp::{
    self as wa,
    context_info::external_ad_reply_info::MediaType,
    message::{
        buttons_response_message::Response, interactive_response_message::InteractiveResponseMessage as Flow,
        order_message::OrderStatus,
    },
};

use crate::whatsapp::decode::{
    media::{Attachment, image},
    received::Kind,
};

/// What somebody chose of what a business offered.
#[derive(Default, Serialize, ToSchema)]
#[schema(as = ReceivedReply)]
pub struct Reply<'a> {
    /// Its id, which the business chose.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    /// Its words.
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<&'a str>,
    /// What stands below the title in a list.
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    /// Which button of a template, counted from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<u32>,
    /// The name of a native flow.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    /// What a native flow led to: JSON, as a text.
    #[serde(skip_serializing_if = "Option::is_none")]
    params: Option<&'a str>,
}

/// A cart that was sent.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ReceivedOrder)]
pub struct Order<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    /// `inquiry`, `accepted` or `declined`.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    item_count: Option<i32>,
    /// What it costs, in thousandths of the currency.
    #[serde(skip_serializing_if = "Option::is_none")]
    total_amount1000: Option<i64>,
    /// ISO 4217.
    #[serde(skip_serializing_if = "Option::is_none")]
    currency: Option<&'a str>,
}

/// A product of a catalogue.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ReceivedProduct)]
pub struct Product<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    /// The business's own name for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    retailer_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    /// What it costs, in thousandths of the currency.
    #[serde(skip_serializing_if = "Option::is_none")]
    price_amount1000: Option<i64>,
    /// What it costs for a time, in thousandths of the currency.
    #[serde(skip_serializing_if = "Option::is_none")]
    sale_price_amount1000: Option<i64>,
    /// ISO 4217.
    #[serde(skip_serializing_if = "Option::is_none")]
    currency: Option<&'a str>,
    /// Its page.
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<&'a str>,
}

/// The ad or post that somebody came from.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ReceivedReferral)]
pub struct Referral<'a> {
    /// Where it leads.
    #[serde(skip_serializing_if = "Option::is_none")]
    source_url: Option<&'a str>,
    /// `ad` or `post`.
    #[serde(skip_serializing_if = "Option::is_none")]
    source_type: Option<&'a str>,
    /// Its id at Meta.
    #[serde(skip_serializing_if = "Option::is_none")]
    source_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    headline: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<&'a str>,
    /// `image` or `video`.
    #[serde(skip_serializing_if = "Option::is_none")]
    media_type: Option<&'static str>,
    /// Where its video is.
    #[serde(skip_serializing_if = "Option::is_none")]
    media_url: Option<&'a str>,
    /// Where a small picture of it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    thumbnail_url: Option<&'a str>,
    /// The id of the click.
    #[serde(skip_serializing_if = "Option::is_none")]
    ctwa_clid: Option<&'a str>,
}

/// What a customer says in one of these ways.
#[derive(Default)]
pub struct Said<'a> {
    pub kind: Kind,
    /// Its words.
    pub text: Option<&'a str>,
    pub reply: Option<Reply<'a>>,
    pub order: Option<Order<'a>>,
    pub product: Option<Product<'a>>,
    /// The picture of a product.
    pub image: Option<Attachment<'a>>,
}

/// What a message says, if it is one of these.
pub fn said(base: &wa::Message) -> Option<Said<'_>> {
    if let Some(pressed) = base.buttons_response_message.as_option() {
        let title = match &pressed.response {
            Some(Response::SelectedDisplayText(text)) => words(text),
            None => None,
        };
        let id = pressed.selected_button_id.clone();
        return Some(chosen(Kind::ButtonReply, title, Reply { id, title, ..Reply::default() }));
    }
    if let Some(pressed) = base.template_button_reply_message.as_option() {
        let title = pressed.selected_display_text.as_deref().and_then(words);
        let reply = Reply { id: pressed.selected_id.clone(), title, index: pressed.selected_index, ..Reply::default() };
        return Some(chosen(Kind::TemplateReply, title, reply));
    }
    if let Some(list) = base.list_response_message.as_option() {
        let title = list.title.as_deref().and_then(words);
        let id = list.single_select_reply.as_option().and_then(|row| row.selected_row_id.clone());
        let description = list.description.as_deref().and_then(words);
        return Some(chosen(Kind::ListReply, title, Reply { id, title, description, ..Reply::default() }));
    }
    if let Some(answer) = base.interactive_response_message.as_option() {
        let title = answer.body.as_option().and_then(|body| words(body.text.as_deref()?));
        let reply = match &answer.interactive_response_message {
            Some(Flow::NativeFlowResponseMessage(flow)) => {
                let (name, params) = (flow.name.as_deref(), flow.params_json.as_deref());
                Reply { id: params.and_then(id_in), title, name, params, ..Reply::default() }
            }
            None => Reply { title, ..Reply::default() },
        };
        return Some(chosen(Kind::FlowReply, title, reply));
    }
    if let Some(order) = base.order_message.as_option() {
        let status = order.status.as_ref().map(|status| match status {
            OrderStatus::INQUIRY => "inquiry",
            OrderStatus::ACCEPTED => "accepted",
            OrderStatus::DECLINED => "declined",
        });
        let told = Order {
            id: order.order_id.as_deref(),
            status,
            title: order.order_title.as_deref().and_then(words),
            item_count: order.item_count,
            total_amount1000: order.total_amount1000,
            currency: order.total_currency_code.as_deref().and_then(words),
        };
        let text = order.message.as_deref().and_then(words);
        return Some(Said { kind: Kind::Order, text, order: Some(told), ..Said::default() });
    }
    let message = base.product_message.as_option()?;
    let product = message.product.as_option();
    let told = product.map(|product| Product {
        id: product.product_id.as_deref(),
        retailer_id: product.retailer_id.as_deref().and_then(words),
        title: product.title.as_deref().and_then(words),
        description: product.description.as_deref().and_then(words),
        price_amount1000: product.price_amount1000,
        sale_price_amount1000: product.sale_price_amount1000,
        currency: product.currency_code.as_deref().and_then(words),
        url: product.url.as_deref().and_then(words),
    });
    Some(Said {
        kind: Kind::Product,
        text: message.body.as_deref().and_then(words),
        product: told,
        image: product.and_then(|product| product.product_image.as_option()).map(image),
        ..Said::default()
    })
}

/// The ad or post that the sender came from, if the message says so. Some clients dress links up in the same way.
pub fn referral(context: &wa::ContextInfo) -> Option<Referral<'_>> {
    let ad = context.external_ad_reply.as_option()?;
    fn text(field: &Option<String>) -> Option<&str> {
        field.as_deref().and_then(words)
    }
    let referral = Referral {
        source_url: text(&ad.source_url),
        source_type: text(&ad.source_type),
        source_id: text(&ad.source_id),
        headline: text(&ad.title),
        body: text(&ad.body),
        media_type: match ad.media_type {
            Some(MediaType::IMAGE) => Some("image"),
            Some(MediaType::VIDEO) => Some("video"),
            Some(MediaType::NONE) | None => None,
        },
        media_url: text(&ad.media_url),
        thumbnail_url: text(&ad.thumbnail_url),
        ctwa_clid: text(&ad.ctwa_clid),
    };
    let names_a_source = [referral.source_url, referral.source_type, referral.source_id, referral.ctwa_clid];
    names_a_source.iter().any(Option::is_some).then_some(referral)
}

fn chosen<'a>(kind: Kind, text: Option<&'a str>, reply: Reply<'a>) -> Said<'a> {
    Said { kind, text, reply: Some(reply), ..Said::default() }
}

/// A text that says something.
fn words(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

/// The id in what a native flow led to: quick replies and lists have it there.
fn id_in(params: &str) -> Option<String> {
    let params: Value = serde_json::from_str(params).ok()?;
    params.get("id")?.as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_that_is_dressed_up_as_an_ad_is_none() {
        let mut context = wa::ContextInfo::default();
        assert!(referral(&context).is_none());
        let dressed = wa::context_info::ExternalAdReplyInfo {
            title: Some("Sale".into()),
            source_url: Some(String::new()),
            ..Default::default()
        };
        context.external_ad_reply = dressed.into();
        assert!(referral(&context).is_none());
        context.external_ad_reply.get_or_insert_default().ctwa_clid = Some("click".into());
        let told = serde_json::to_value(referral(&context)).unwrap();
        assert_eq!(told, serde_json::json!({"headline": "Sale", "ctwaClid": "click"}));
    }

    #[test]
    fn a_flow_has_an_id_where_its_json_has_one() {
        for (params, id) in
            [("{\"id\":\"a\"}", Some("a")), ("{\"id\":1}", None), ("{}", None), ("[1", None), ("", None)]
        {
            assert_eq!(id_in(params).as_deref(), id, "{params}");
        }
    }
}
