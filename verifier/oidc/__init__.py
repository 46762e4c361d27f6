"""Sign-in through an OpenID Connect provider: authorisation code with PKCE."""
