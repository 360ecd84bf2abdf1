"""The GraphQL door: types, queries, mutations and subscriptions over the services."""
