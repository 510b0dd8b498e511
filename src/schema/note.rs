//! What hangs on objects of any kind: comments, security labels, dependencies on extensions.

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
    /// Provider and label.
    #[serde(flatten)]
    pub label: Label,
}

/// A label of an object that is known already.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Label {
    /// The label provider.
    pub provider: String,
    /// The label.
    pub label: String,
}

/// An object that goes when an extension goes, without being its member.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ExtensionDependency {
    /// The object.
    pub id: ObjectId,
    /// What ALTER takes.
    pub subject: String,
    /// The extension.
    pub extension: String,
}
