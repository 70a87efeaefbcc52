//! The calls about tokens.

use proto::ids::TenantId;
use proto::status::chain;
use proto::token::{Token, TokenKeyId};

use super::Service;
use crate::coordinator::operator_tokens::{self, CreateJoinToken, RotateAdminToken};
use crate::coordinator::tokens::{self, CreateTenantToken, FORGOTTEN_AT_ONCE, RevokeTenantToken, TenantToken};
use crate::error::MetadataError;
use crate::storage::admin_file;

/// The admin's next token.
#[derive(Debug)]
pub struct RotatedAdminToken {
    /// The token.
    pub token: Token,
    /// When the one before ends.
    pub previous_expire_ms: u64,
    /// Whether the service's own file holds it now.
    pub file_written: bool,
}

impl Service {
    /// See [`tokens::create`].
    ///
    /// # Errors
    /// [`MetadataError`].
    pub async fn create_tenant_token(&self, command: CreateTenantToken) -> Result<(Token, TenantToken), MetadataError> {
        self.decide(move |view, context| tokens::create(view, context, &command)).await
    }

    /// See [`tokens::revoke`].
    ///
    /// # Errors
    /// [`MetadataError`].
    pub async fn revoke_tenant_token(&self, command: RevokeTenantToken) -> Result<(), MetadataError> {
        self.decide(move |view, context| tokens::revoke(view, context, &command)).await
    }

    /// See [`tokens::list`].
    ///
    /// # Errors
    /// [`MetadataError`].
    pub async fn list_tenant_tokens(&self, tenant: &TenantId) -> Result<Vec<TenantToken>, MetadataError> {
        self.watch(tokens::list(self.engine(), tenant).await)
    }

    /// See [`operator_tokens::rotate_admin`]; then brings the token's file up to date. A file that cannot be written is no
    /// failure of the call, since the token is made: the next start writes it.
    ///
    /// # Errors
    /// [`MetadataError`].
    pub async fn rotate_admin_token(&self, command: RotateAdminToken) -> Result<RotatedAdminToken, MetadataError> {
        let decided = self.decide(move |view, context| operator_tokens::rotate_admin(view, context, &command)).await;
        let (token, previous_expire_ms) = decided?;
        let file_written = self.bring_admin_file_up_to_date().await;
        Ok(RotatedAdminToken { token, previous_expire_ms, file_written })
    }

    async fn bring_admin_file_up_to_date(&self) -> bool {
        let Some(file) = self.shared.admin_token.clone() else { return false };
        match admin_file::follow(&file, self.engine(), &self.cluster().secret).await {
            Ok(written) => written,
            Err(error) => {
                tracing::error!(file = %file.display(), cause = %chain(&error), "the new admin token is not in its file");
                false
            }
        }
    }

    /// See [`operator_tokens::create_join`].
    ///
    /// # Errors
    /// [`MetadataError`].
    pub async fn create_join_token(&self, command: CreateJoinToken) -> Result<(Token, u64), MetadataError> {
        self.decide(move |view, context| operator_tokens::create_join(view, context, &command)).await
    }

    /// See [`tokens::forget`]; in as many commits as it takes.
    ///
    /// # Errors
    /// [`MetadataError`].
    pub async fn forget_tokens(&self, key_ids: &[TokenKeyId]) -> Result<u64, MetadataError> {
        let mut forgotten = 0;
        for some in key_ids.chunks(FORGOTTEN_AT_ONCE) {
            let some = some.to_vec();
            forgotten += self.decide(move |view, context| tokens::forget(view, context, &some)).await?;
        }
        Ok(forgotten)
    }
}
