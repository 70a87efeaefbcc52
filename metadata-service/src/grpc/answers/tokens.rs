//! Tokens.

use proto::pb;
use proto::token::Token;

use super::{FromAnswer, timestamp};
use crate::coordinator::tokens::TenantToken;
use crate::service::RotatedAdminToken;
use crate::store::records::Scope;

impl From<TenantToken> for pb::TenantToken {
    fn from(TenantToken { key_id, scopes, create_ms, expire_ms, main }: TenantToken) -> Self {
        let scope = |scope| match scope {
            Scope::Read => pb::TokenScope::Read,
            Scope::Write => pb::TokenScope::Write,
            Scope::Delete => pb::TokenScope::Delete,
            Scope::List => pb::TokenScope::List,
        };
        Self {
            key_id: key_id.to_string(),
            scopes: scopes.iter().map(|one| scope(one).into()).collect(),
            create_time: create_ms.map(timestamp),
            expire_time: expire_ms.map(timestamp),
            main,
        }
    }
}

impl FromAnswer<Token> for pb::RotateTenantTokenResponse {
    fn from_answer(token: Token) -> Self {
        Self { token: token.expose().to_string() }
    }
}

impl FromAnswer<(Token, TenantToken)> for pb::CreateTenantTokenResponse {
    fn from_answer((token, made): (Token, TenantToken)) -> Self {
        Self { token: token.expose().to_string(), tenant_token: Some(made.into()) }
    }
}

impl FromAnswer<Vec<TenantToken>> for pb::ListTenantTokensResponse {
    fn from_answer(found: Vec<TenantToken>) -> Self {
        Self { tenant_tokens: found.into_iter().map(pb::TenantToken::from).collect() }
    }
}

impl FromAnswer<()> for pb::RevokeTenantTokenResponse {
    fn from_answer((): ()) -> Self {
        Self {}
    }
}

impl FromAnswer<RotatedAdminToken> for pb::RotateAdminTokenResponse {
    fn from_answer(RotatedAdminToken { token, previous_expire_ms, file_written }: RotatedAdminToken) -> Self {
        let previous_expire_time = Some(timestamp(previous_expire_ms));
        Self { token: token.expose().to_string(), previous_expire_time, file_written }
    }
}

impl FromAnswer<(Token, u64)> for pb::CreateJoinTokenResponse {
    fn from_answer((token, expire_ms): (Token, u64)) -> Self {
        Self { token: token.expose().to_string(), expire_time: Some(timestamp(expire_ms)) }
    }
}
