"""One proxy and one trust for every outgoing call, as the usual variables say."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from producer.errors import ConfigurationError
from tests.support.gateway import AUTHORITY, Authority, authority, connect_proxy
from tests.support.raw_provider import raw_provider, reply
from worker.errors.classify import Broke, Broken, Reply
from worker.network import Network
from worker.providers import ProviderRequest, Providers
from worker.providers.connectivity import Found, Reached, reach
from worker.routes.route import Route
from worker.routes.schema import RouteEntry

COMPLETION = {"choices": [{"message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}]}
PROXY, OTHER = "http://proxy.corp:3128", "http://other.corp:3128"


@pytest.mark.parametrize(
    ("environment", "url", "proxy"),
    [
        ({}, "https://api.openai.com/v1", None),
        ({"HTTPS_PROXY": PROXY}, "https://api.openai.com/v1", PROXY),
        ({"https_proxy": PROXY, "HTTPS_PROXY": OTHER}, "https://api.openai.com/v1", PROXY),
        ({"HTTPS_PROXY": "proxy.corp:3128"}, "https://api.openai.com/v1", PROXY),
        ({"HTTPS_PROXY": PROXY}, "http://api.openai.com/v1", None),
        ({"HTTP_PROXY": PROXY}, "http://api.openai.com/v1", PROXY),
        ({"ALL_PROXY": PROXY}, "https://api.openai.com/v1", PROXY),
        ({"ALL_PROXY": OTHER, "HTTPS_PROXY": PROXY}, "https://api.openai.com/v1", PROXY),
        ({"HTTPS_PROXY": PROXY, "NO_PROXY": "*"}, "https://api.openai.com/v1", None),
        ({"HTTPS_PROXY": PROXY, "no_proxy": "api.openai.com"}, "https://API.openai.com/v1", None),
        ({"HTTPS_PROXY": PROXY, "NO_PROXY": "x.com, openai.com"}, "https://api.openai.com/v1", None),
        ({"HTTPS_PROXY": PROXY, "NO_PROXY": ".openai.com"}, "https://api.openai.com/v1", None),
        ({"HTTPS_PROXY": PROXY, "NO_PROXY": "*.openai.com"}, "https://api.openai.com/v1", None),
        ({"HTTPS_PROXY": PROXY, "NO_PROXY": "penai.com,com.openai"}, "https://api.openai.com/v1", PROXY),
        ({"HTTPS_PROXY": PROXY, "NO_PROXY": "llm.corp:8443"}, "https://llm.corp:8443/v1", None),
        ({"HTTPS_PROXY": PROXY, "NO_PROXY": "llm.corp:8443"}, "https://llm.corp/v1", PROXY),
        ({"HTTPS_PROXY": PROXY, "NO_PROXY": "llm.corp:443"}, "https://llm.corp/v1", None),
        ({"HTTPS_PROXY": PROXY, "NO_PROXY": "10.0.0.0/8"}, "https://10.1.2.3/v1", None),
        ({"HTTPS_PROXY": PROXY, "NO_PROXY": "10.0.0.0/8"}, "https://11.1.2.3/v1", PROXY),
        ({"HTTPS_PROXY": PROXY, "NO_PROXY": "::1"}, "https://[::1]:8443/v1", None),
    ],
)
def test_which_proxy_a_call_takes(environment: dict[str, str], url: str, proxy: str | None) -> None:
    assert Network.of(environment).proxy_for(url) == proxy


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({"HTTPS_PROXY": "socks5://proxy:1080"}, "HTTPS_PROXY: is not the URL of an HTTP proxy"),
        ({"ALL_PROXY": "http://"}, "ALL_PROXY: is not the URL of an HTTP proxy"),
        ({"HTTP_PROXY": "http://proxy:port"}, "HTTP_PROXY: is not the URL of an HTTP proxy"),
        ({"SSL_CERT_FILE": "/no/such.pem"}, "SSL_CERT_FILE: /no/such.pem: does not exist"),
        ({"REQUESTS_CA_BUNDLE": __file__}, f"REQUESTS_CA_BUNDLE: {__file__}: cannot be read"),
    ],
)
def test_what_cannot_be_used_is_named_at_the_start(environment: dict[str, str], told: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        Network.of(environment)
    assert told in str(refused.value)


def test_no_password_of_a_proxy_is_shown() -> None:
    network = Network.of({"HTTPS_PROXY": "http://me:secret@proxy.corp:3128"})
    assert network.in_words("https://x.com").startswith("through the proxy http://proxy.corp:3128,")
    assert "secret" not in repr(network)


@pytest.fixture
def company(tmp_path: Path) -> Authority:
    return authority(tmp_path)


def called(url: str, network: Network) -> Reply | Broken:
    entry = RouteEntry(provider="openai", model="m", base_url=url)
    body: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]}

    async def go() -> Reply | Broken:
        providers = Providers(2, network)
        try:
            return await providers.complete(
                ProviderRequest(Route("a", "hot", entry, url), "", body=body, idempotency_key="k", seconds=5)
            )
        finally:
            await providers.close()

    return asyncio.run(go())


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
def test_a_companys_own_authority_is_trusted(company: Authority, variable: str) -> None:
    with raw_provider(reply(COMPLETION), tls=company.server) as provider:
        refused = called(provider.url, Network())
        assert isinstance(refused, Broken)
        assert refused.how is Broke.UNREACHABLE
        assert isinstance(called(provider.url, Network.of({variable: str(company.file)})), Reply)


def test_calls_go_through_the_proxy_with_its_password(company: Authority) -> None:
    with raw_provider(reply(COMPLETION), tls=company.server) as provider, connect_proxy(password="me:pa") as proxy:
        through = {"https_proxy": proxy.url.replace("//", "//me:pa@"), "SSL_CERT_FILE": str(company.file)}
        assert isinstance(called(provider.url, Network.of(through)), Reply)
        assert proxy.asked == [f"CONNECT {provider.url.removeprefix('https://')} HTTP/1.1"]
        assert isinstance(called(provider.url, Network.of({**through, "NO_PROXY": "localhost"})), Reply)
        assert len(proxy.asked) == 1
        no_password = called(provider.url, Network.of({**through, "https_proxy": proxy.url}))
        assert no_password == Broken(Broke.LOCAL, "our proxy answers 407 (HTTPS_PROXY)")


def test_plain_http_goes_through_its_proxy(company: Authority) -> None:
    with raw_provider(reply(COMPLETION)) as provider, connect_proxy(password="me:pa") as proxy:
        assert isinstance(called(provider.url, Network.of({"HTTP_PROXY": proxy.url.replace("//", "//me:pa@")})), Reply)
        assert proxy.asked == [f"POST {provider.url}/chat/completions HTTP/1.1"]
        refused = called(provider.url, Network.of({"HTTP_PROXY": proxy.url}))
        assert isinstance(refused, Broken)
        assert refused.how is Broke.LOCAL


def test_the_doctor_asks_as_the_worker_does_and_names_who_signed(company: Authority) -> None:
    with raw_provider(reply({"data": []}), reply({}, 404), tls=company.server) as provider, connect_proxy() as proxy:
        route = Route("a", "hot", RouteEntry(provider="x", model="m", base_url=provider.url), provider.url)
        trusted = {"HTTPS_PROXY": proxy.url, "SSL_CERT_FILE": str(company.file)}
        (found,) = reach([route], Network.of(trusted))
        assert found == Found(Reached.OK, "200", f"{provider.url}/models")
        assert len(proxy.asked) == 1
        (found,) = reach([route], Network.of(trusted))
        assert (found.how, found.detail) == (Reached.NO_MODELS, "404")
        (found,) = reach([route], Network.of({"HTTPS_PROXY": proxy.url}))
        assert found.how is Reached.UNREACHABLE
        assert f"the certificate of localhost, which is signed by {AUTHORITY!r}, is not trusted here" in found.detail


@pytest.mark.parametrize("proxy", ["http://127.0.0.1:9", "http://no-such-proxy.invalid:3128"])
def test_a_proxy_that_is_away_is_trouble_of_ours(proxy: str) -> None:
    answer = called("https://api.example.com/v1", Network.of({"HTTPS_PROXY": proxy}))
    assert isinstance(answer, Broken)
    assert answer.how is Broke.LOCAL
    assert answer.detail.startswith("our proxy cannot be used")


def test_a_proxy_that_cannot_connect_is_trouble_of_ours() -> None:
    with connect_proxy(refuse="503 Service Unavailable") as proxy:
        answer = called("https://api.example.com/v1", Network.of({"HTTPS_PROXY": proxy.url}))
    assert answer == Broken(Broke.LOCAL, "our proxy answers 503 (HTTPS_PROXY)")
