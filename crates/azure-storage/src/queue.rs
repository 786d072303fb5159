//! Queues: a message is put, seen by one reader for a while, and deleted by it; one that is not deleted is seen again.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;

use crate::client::{Repeat, Storage};
use crate::error::Error;
use crate::resource::Resource;

/// Longest text of a message that the service takes, in bytes.
pub const LONGEST_MESSAGE: usize = 64 << 10;

const XML: &str = "application/xml";

/// A message that was read. Its text is usually Base64, and may hold signatures: `Debug` leaves it out.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Message {
    /// Its id in the queue.
    pub message_id: String,
    /// With which it can be deleted while nobody else sees it.
    pub pop_receipt: String,
    /// How often it was read, this time included.
    pub dequeue_count: u32,
    /// What was put.
    #[serde(default)]
    pub message_text: String,
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Message({}, read {} times, {} bytes)", self.message_id, self.dequeue_count, self.message_text.len())
    }
}

impl Storage {
    /// Puts a message. With `once`, it is put again only if it is known not to have been put; without, the reader may see it
    /// twice.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn put_message(&self, queue: &Resource, text: &str, once: bool) -> Result<(), Error> {
        let doing = format!("putting a message into queue {queue}");
        if text.len() > LONGEST_MESSAGE {
            return Err(Error::invalid(&doing, "MESSAGE", format!("it is {} bytes long; {LONGEST_MESSAGE} are allowed", text.len())));
        }
        let body = Bytes::from(envelope(text));
        let url = queue.route(&["messages"]);
        let repeat = if once { Repeat::IfNotExecuted } else { Repeat::Always };
        self.send(&doing, repeat, |http| http.post(url.clone()).header("Content-Type", XML).body(body.clone())).await.map(drop)
    }

    /// Takes up to 32 messages, which nobody else sees for `hidden` (whole seconds).
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn get_messages(&self, queue: &Resource, most: u32, hidden: Duration) -> Result<Vec<Message>, Error> {
        let doing = format!("reading messages of queue {queue}");
        let mut url = queue.route(&["messages"]);
        url.query_pairs_mut()
            .append_pair("numofmessages", &most.clamp(1, 32).to_string())
            .append_pair("visibilitytimeout", &hidden.as_secs().max(1).to_string());
        let body = self.fetch(&doing, Repeat::Always, |http| http.get(url.clone())).await?;
        read_messages(&body).map_err(|why| Error::unreadable(&doing, why))
    }

    /// Hides a message that was read for another while from now on.
    ///
    /// # Errors
    /// See [`Error`]; not found when somebody else has seen it since.
    pub async fn hide_message(&self, queue: &Resource, message: &mut Message, hidden: Duration) -> Result<(), Error> {
        let doing = format!("hiding message {} of queue {queue}", message.message_id);
        let mut url = queue.route(&["messages", &message.message_id]);
        url.query_pairs_mut()
            .append_pair("popreceipt", &message.pop_receipt)
            .append_pair("visibilitytimeout", &hidden.as_secs().to_string());
        let body = Bytes::from(envelope(&message.message_text));
        // after a lost answer the receipt is another one
        let answer = self.send(&doing, Repeat::IfNotExecuted, |http| http.put(url.clone()).header("Content-Type", XML).body(body.clone()));
        let receipt = answer.await?.headers().get("x-ms-popreceipt").and_then(|receipt| receipt.to_str().ok().map(str::to_owned));
        message.pop_receipt = receipt.ok_or_else(|| Error::unreadable(&doing, "it has no x-ms-popreceipt"))?;
        Ok(())
    }

    /// Deletes a message; one that is gone already, or that somebody else has seen since, is left.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn delete_message(&self, queue: &Resource, message: &Message) -> Result<(), Error> {
        let doing = format!("deleting message {} of queue {queue}", message.message_id);
        let mut url = queue.route(&["messages", &message.message_id]);
        url.query_pairs_mut().append_pair("popreceipt", &message.pop_receipt);
        match self.send(&doing, Repeat::Always, |http| http.delete(url.clone())).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }
}

/// A message's text in its XML.
fn envelope(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            c => escaped.push(c),
        }
    }
    format!("<QueueMessage><MessageText>{escaped}</MessageText></QueueMessage>")
}

#[derive(Deserialize)]
struct MessagesList {
    #[serde(rename = "QueueMessage", default)]
    messages: Vec<Message>,
}

fn read_messages(body: &[u8]) -> Result<Vec<Message>, String> {
    let text = std::str::from_utf8(body).map_err(|error| error.to_string())?;
    let list: MessagesList = quick_xml::de::from_str(text.trim_start_matches('\u{feff}')).map_err(|error| error.to_string())?;
    Ok(list.messages)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the service's documentation, with a receipt that needs escaping.
    #[test]
    fn the_documented_list_is_read() {
        let body = "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?>
<QueueMessagesList>
    <QueueMessage>
      <MessageId>5974b586-0df3-4e2d-ad0c-18e3892bfca2</MessageId>
      <InsertionTime>Fri, 09 Oct 2009 21:04:30 GMT</InsertionTime>
      <ExpirationTime>Fri, 16 Oct 2009 21:04:30 GMT</ExpirationTime>
      <PopReceipt>YzQ4Yzg1MDI&amp;+/=</PopReceipt>
      <TimeNextVisible>Fri, 09 Oct 2009 23:29:20 GMT</TimeNextVisible>
      <DequeueCount>1</DequeueCount>
      <MessageText>PHRlc3Q+dGVzdDwvdGVzdD4=</MessageText>
    </QueueMessage>
</QueueMessagesList>";
        let messages = read_messages(body.as_bytes()).unwrap();
        assert_eq!(messages.len(), 1);
        assert_eq!(messages[0].message_text, "PHRlc3Q+dGVzdDwvdGVzdD4=");
        assert_eq!((messages[0].pop_receipt.as_str(), messages[0].dequeue_count), ("YzQ4Yzg1MDI&+/=", 1));
        assert_eq!(read_messages(b"<?xml version=\"1.0\"?><QueueMessagesList />").unwrap(), []);
        assert!(read_messages(b"{}").is_err());
    }
}
