//! Tokens that the service makes: derived from the cluster secret, so that only a hash has to be kept and a repeated
//! request shows the same token again (I18).

use proto::ids::{NodeId, TenantId};
use proto::secret::SecretKey;
use proto::token::{Token, TokenKeyId, TokenKind};

use crate::store::records::{Holder, TokenRecord};

/// A tenant's token.
pub fn of_tenant(secret: &SecretKey, tenant: &TenantId, key_id: TokenKeyId) -> Token {
    let parts: [&[u8]; 2] = [tenant.as_str().as_bytes(), key_id.as_bytes()];
    Token::new(TokenKind::Tenant, key_id, secret.derive("mini-tectonic tenant token v1", &parts))
}

/// An admin's token that another one made.
pub fn of_admin(secret: &SecretKey, key_id: TokenKeyId) -> Token {
    Token::new(TokenKind::Admin, key_id, secret.derive("mini-tectonic admin token v1", &[key_id.as_bytes()]))
}

/// A join token that the admin made.
pub fn of_join(secret: &SecretKey, key_id: TokenKeyId) -> Token {
    Token::new(TokenKind::Join, key_id, secret.derive("mini-tectonic join token v1", &[key_id.as_bytes()]))
}

/// A node's token; a node has one.
pub fn of_node(secret: &SecretKey, node: NodeId) -> Token {
    let sum = secret.sum("mini-tectonic node token id v1", &[node.as_bytes()]);
    let key_id = sum.first_chunk::<8>().and_then(|id| TokenKeyId::try_from(id.as_slice()).ok());
    let key_id = key_id.expect("a keyed sum has more than the 8 bytes of a key id");
    Token::new(TokenKind::Node, key_id, secret.derive("mini-tectonic node token v1", &[node.as_bytes()]))
}

/// The row that recognises a token.
pub fn record(token: &Token, holder: Holder) -> TokenRecord {
    TokenRecord::new(holder, token.secret_sha256())
}

#[cfg(test)]
mod tests {
    use proto::entropy::SeededEntropy;

    use super::*;

    #[test]
    fn a_token_is_the_same_each_time_and_differs_by_tenant_key_id_and_secret() {
        let entropy = SeededEntropy::new(1);
        let secret = SecretKey::generate(&entropy);
        let (one, other) = (TokenKeyId::generate(&entropy), TokenKeyId::generate(&entropy));
        let (posts, images): (TenantId, TenantId) = ("posts".parse().unwrap(), "images".parse().unwrap());
        let text = of_tenant(&secret, &posts, one).expose();
        assert_eq!(text, of_tenant(&secret, &posts, one).expose());
        assert_ne!(text, of_tenant(&secret, &images, one).expose());
        assert_ne!(text, of_tenant(&secret, &posts, other).expose());
        assert_ne!(text, of_tenant(&SecretKey::generate(&entropy), &posts, one).expose());
        let node = NodeId::generate(1, &entropy);
        assert_eq!(of_node(&secret, node).expose(), of_node(&secret, node).expose());
    }
}
