//! What customers send to businesses: what they chose of buttons, lists and templates, orders, and products.

use serde::Deserialize;
use waproto::whatsapp as wa;

use super::compose::Draft;

/// A button that was pressed.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ButtonReply {
    /// Its id, which the business chose.
    pub id: String,
    /// Its words.
    pub text: String,
}

/// A quick reply of a template that was pressed.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TemplateReply {
    /// Its id, which the business chose.
    pub id: String,
    /// Its words.
    pub text: String,
    /// Which one, counted from 0.
    #[serde(default)]
    pub index: u32,
}

/// A row of a list that was chosen.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListReply {
    /// Its id, which the business chose.
    pub id: String,
    /// Its title.
    pub title: String,
    /// What stands below the title.
    pub description: Option<String>,
}

/// A native flow that was gone through.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlowReply {
    /// The flow's name.
    pub name: String,
    /// The words that the chat shows.
    pub text: String,
    /// What it led to: JSON, as a text.
    pub params: String,
}

/// A cart that was sent to a business.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Order {
    /// Its id.
    pub id: String,
    /// What it is called.
    pub title: Option<String>,
    /// What the customer writes with it.
    pub message: Option<String>,
    /// How many items.
    pub item_count: Option<i32>,
    /// What it costs, in thousandths of the currency.
    pub total_amount1000: Option<i64>,
    /// ISO 4217.
    pub currency: Option<String>,
}

/// A product of a catalogue.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Product {
    /// Its id.
    pub id: String,
    /// The business's own name for it.
    pub retailer_id: Option<String>,
    /// What it is called.
    pub title: Option<String>,
    /// What it is.
    pub description: Option<String>,
    /// ISO 4217.
    pub currency: Option<String>,
    /// What it costs, in thousandths of the currency.
    pub price_amount1000: Option<i64>,
    /// Its page.
    pub url: Option<String>,
    /// What the customer writes with it.
    pub body: Option<String>,
}

impl From<ButtonReply> for Draft {
    fn from(reply: ButtonReply) -> Self {
        use wa::message::buttons_response_message::{Response, Type};
        let message = wa::message::ButtonsResponseMessage {
            selected_button_id: Some(reply.id),
            r#type: Some(Type::DISPLAY_TEXT),
            response: Some(Response::SelectedDisplayText(reply.text)),
            ..Default::default()
        };
        Self::built(wa::Message { buttons_response_message: Some(message).into(), ..Default::default() })
    }
}

impl From<TemplateReply> for Draft {
    fn from(reply: TemplateReply) -> Self {
        let message = wa::message::TemplateButtonReplyMessage {
            selected_id: Some(reply.id),
            selected_display_text: Some(reply.text),
            selected_index: Some(reply.index),
            ..Default::default()
        };
        Self::built(wa::Message { template_button_reply_message: Some(message).into(), ..Default::default() })
    }
}

impl From<ListReply> for Draft {
    fn from(reply: ListReply) -> Self {
        use wa::message::list_response_message::{ListType, SingleSelectReply};
        let chosen = SingleSelectReply { selected_row_id: Some(reply.id) };
        let message = wa::message::ListResponseMessage {
            title: Some(reply.title),
            description: reply.description,
            list_type: Some(ListType::SINGLE_SELECT),
            single_select_reply: Some(chosen).into(),
            ..Default::default()
        };
        Self::built(wa::Message { list_response_message: Some(message).into(), ..Default::default() })
    }
}

impl From<FlowReply> for Draft {
    fn from(reply: FlowReply) -> Self {
        use wa::message::interactive_response_message::{
            Body, InteractiveResponseMessage as Response, NativeFlowResponseMessage,
        };
        let flow =
            NativeFlowResponseMessage { name: Some(reply.name), params_json: Some(reply.params), version: Some(3) };
        let message = wa::message::InteractiveResponseMessage {
            body: Some(Body { text: Some(reply.text), ..Default::default() }).into(),
            interactive_response_message: Some(Response::NativeFlowResponseMessage(Box::new(flow))),
            ..Default::default()
        };
        Self::built(wa::Message { interactive_response_message: Some(message).into(), ..Default::default() })
    }
}

impl From<Order> for Draft {
    fn from(order: Order) -> Self {
        use wa::message::order_message::{OrderStatus, OrderSurface};
        let message = wa::message::OrderMessage {
            order_id: Some(order.id),
            order_title: order.title,
            message: order.message,
            item_count: order.item_count,
            total_amount1000: order.total_amount1000,
            total_currency_code: order.currency,
            status: Some(OrderStatus::INQUIRY),
            surface: Some(OrderSurface::CATALOG),
            ..Default::default()
        };
        Self::built(wa::Message { order_message: Some(message).into(), ..Default::default() })
    }
}

impl From<Product> for Draft {
    fn from(product: Product) -> Self {
        let snapshot = wa::message::product_message::ProductSnapshot {
            product_id: Some(product.id),
            retailer_id: product.retailer_id,
            title: product.title,
            description: product.description,
            currency_code: product.currency,
            price_amount1000: product.price_amount1000,
            url: product.url,
            ..Default::default()
        };
        let message =
            wa::message::ProductMessage { product: Some(snapshot).into(), body: product.body, ..Default::default() };
        Self::built(wa::Message { product_message: Some(message).into(), ..Default::default() })
    }
}
