//! Comments and security labels: text that hangs on other objects.

use serde::Deserialize;

use super::ObjectId;

/// A comment.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Comment {
    /// The object.
    pub id: ObjectId,
    /// What COMMENT ON takes: `COLUMN "public"."film"."title"`.
    pub subject: String,
    /// The text.
    pub text: String,
}

/// A security label.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct SecurityLabel {
    /// The object.
    pub id: ObjectId,
    /// What SECURITY LABEL … ON takes.
    pub subject: String,
    /// The label provider.
    pub provider: String,
    /// The label.
    pub label: String,
}
