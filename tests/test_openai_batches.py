"""Files and batches over the queue, with OpenAI's own SDK."""

from __future__ import annotations

import io
import json
import signal
from typing import Any

import httpx
import openai
import pytest
import redis

from producer import Producer
from producer.connection import connect
from tests.support.openai_door import door
from tests.support.polling import until
from tests.support.web import TOKEN
from tests.support.workshop import Workshop

pytestmark = pytest.mark.server


def line(number: int, text: str = "", **more: Any) -> dict[str, Any]:
    body = {"model": "any", "messages": [{"role": "user", "content": text or f"note {number}"}]}
    return {"custom_id": f"n{number}", "method": "POST", "url": "/v1/chat/completions", "body": body, **more}


def jsonl(lines: list[Any]) -> bytes:
    return "".join((each if isinstance(each, str) else json.dumps(each)) + "\n" for each in lines).encode()


def upload(sdk: openai.OpenAI, content: bytes) -> str:
    return sdk.files.create(file=("in.jsonl", io.BytesIO(content)), purpose="batch").id


def create(sdk: openai.OpenAI, lines: list[Any], **more: Any) -> Any:
    given = {"endpoint": "/v1/chat/completions", "completion_window": "24h", **more}
    return sdk.batches.create(input_file_id=upload(sdk, jsonl(lines)), **given)


def ended(sdk: openai.OpenAI, batch_id: str, seconds: float = 60) -> Any:
    over = ("completed", "failed", "expired", "cancelled")
    return until(lambda: (it := sdk.batches.retrieve(batch_id)).status in over and it, "the batch ends", seconds)


def counts(sdk: openai.OpenAI, batch_id: str) -> dict[str, int]:
    found: Any = sdk.batches.retrieve(batch_id).request_counts
    return dict(found)


def lines_of(sdk: openai.OpenAI, file_id: str | None) -> list[dict[str, Any]]:
    return [json.loads(each) for each in sdk.files.content(file_id or "").text.splitlines()] if file_id else []


def test_a_file_comes_back_as_it_was_and_goes_when_it_is_deleted(sdk: openai.OpenAI, sdk_redis: redis.Redis) -> None:
    content = bytes(range(256)) * 10_000  # several parts, not text
    made = sdk.files.create(file=("näme.bin", io.BytesIO(content)), purpose="user_data")
    assert (made.bytes, made.filename, made.status) == (len(content), "näme.bin", "processed")
    assert sdk.files.content(made.id).content == content
    assert sdk.files.retrieve(made.id).purpose == "user_data"
    other = sdk.files.create(file=b"x", purpose="batch")
    assert {each.id for each in sdk.files.list()} == {other.id, made.id}
    assert [each.id for each in sdk.files.list(purpose="batch")] == [other.id]
    assert len(list(sdk.files.list(limit=1))) == 2  # the SDK turns the pages
    for each in (made, other):
        assert sdk.files.delete(each.id).deleted
    with pytest.raises(openai.NotFoundError):
        sdk.files.content(made.id)
    assert [key for key in sdk_redis.scan_iter("failover:file*") if b":of:" not in key] == []


def test_a_wrong_upload_is_a_sentence(sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="purpose"):
        sdk.files.create(file=b"x", purpose="nonsense")  # type: ignore[arg-type]
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with httpx.Client(base_url=str(sdk.base_url), headers=headers, trust_env=False) as http:
        assert http.post("files", content=b"{}").json()["error"]["message"].startswith("a file is sent as multipart")
        broken = {"content-type": "multipart/form-data; boundary=x"}
        assert http.post("files", content=b"--y nothing", headers=broken).status_code == 400


def test_a_file_that_is_too_large_is_refused_in_words(sdk: openai.OpenAI, workshop: Workshop) -> None:
    huge = workshop.folder / "huge"
    with huge.open("wb") as file:
        file.truncate(201_000_000)
    with huge.open("rb") as file, pytest.raises(openai.APIStatusError, match="200,000,000") as refused:
        sdk.files.create(file=file, purpose="batch")
    assert refused.value.status_code == 413


def test_a_batch_runs_its_lines_and_writes_them_in_their_order(sdk: openai.OpenAI, sdk_redis: redis.Redis) -> None:
    made = create(sdk, [line(number) for number in range(450)], metadata={"feature": "notes", "for": "acme"})
    assert made.status == "validating" and made.metadata == {"feature": "notes", "for": "acme"}
    done = ended(sdk, made.id)
    assert done.status == "completed" and done.errors is None and done.error_file_id is None
    assert done.request_counts.to_dict() == {"total": 450, "completed": 450, "failed": 0}
    answers = lines_of(sdk, done.output_file_id)
    assert [each["custom_id"] for each in answers] == [f"n{number}" for number in range(450)]
    texts = [each["response"]["body"]["choices"][0]["message"]["content"] for each in answers]
    assert texts == [f"You said: note {number}" for number in range(450)]
    assert made.id in {each.id for each in sdk.batches.list()}
    assert sdk_redis.scard("failover:batches:open") == 0
    one = answers[0]["response"]["request_id"]
    assert sdk_redis.ttl(f"rq:job:{one}") <= 3600  # the file has the answer now


def test_a_wrong_line_fails_the_batch_with_its_number_before_anything_is_paid(
    sdk: openai.OpenAI, workshop: Workshop
) -> None:
    good = line(1)
    cases: list[tuple[list[Any], str, int | None]] = [
        ([good, "{not json"], "not JSON", 2),
        ([good, "", line(2, url="/v1/embeddings")], "url", 3),
        ([good, line(1, "another")], "custom_id", 2),
        ([], "no line", None),
        (["[", json.dumps(good), "]"], "JSON array", None),
    ]
    for lines, why, number in cases:
        failed = ended(sdk, create(sdk, lines).id)
        (error,) = failed.errors.data
        assert failed.status == "failed" and error.line == number and why in error.message
    many = upload(sdk, b"\n".join([json.dumps(good).encode()] * 50_001))
    failed = ended(
        sdk, sdk.batches.create(input_file_id=many, endpoint="/v1/chat/completions", completion_window="24h").id
    )
    assert failed.errors.data[0].message.startswith("line 2: custom_id") or "50,000" in failed.errors.data[0].message
    blank = sdk.batches.create(
        input_file_id=upload(sdk, b"\n" * 50_000_000), endpoint="/v1/chat/completions", completion_window="24h"
    )
    assert "more than 50,000 lines" in ended(sdk, blank.id, 20).errors.data[0].message
    assert workshop.providers.account("a")["asked"] == 0


def test_lines_that_die_are_in_the_error_file(sdk: openai.OpenAI, workshop: Workshop, sdk_producer: Producer) -> None:
    workshop.providers.behave("a", status=400, error={"message": "filtered", "code": "content_filter"}, every=3)
    done = ended(sdk, create(sdk, [line(number) for number in range(9)]).id)
    good, bad = lines_of(sdk, done.output_file_id), lines_of(sdk, done.error_file_id)
    assert done.status == "completed" and done.request_counts.failed == len(bad) == 3 and len(good) == 6
    assert all(each["response"]["status_code"] == 400 and each["error"] is None for each in bad)
    assert all("filtered" in each["response"]["body"]["error"]["message"] for each in bad)
    assert sdk_producer.client.zcard("rq:failed:ai-tasks") == 3  # people may still answer them


def test_what_cannot_be_created_is_refused_in_words(sdk: openai.OpenAI) -> None:
    file_id = upload(sdk, jsonl([line(1)]))
    with pytest.raises(openai.BadRequestError, match="endpoint"):
        sdk.batches.create(input_file_id=file_id, endpoint="/v1/embeddings", completion_window="24h")
    with pytest.raises(openai.BadRequestError, match="completion_window"):
        sdk.batches.create(
            input_file_id=file_id,
            endpoint="/v1/chat/completions",
            completion_window="soon",  # type: ignore[arg-type]
        )
    with pytest.raises(openai.NotFoundError, match="file-nowhere"):
        sdk.batches.create(input_file_id="file-nowhere", endpoint="/v1/chat/completions", completion_window="24h")
    with pytest.raises(openai.NotFoundError):
        sdk.batches.retrieve("batch_nowhere")


def test_a_cancelled_batch_has_the_answers_that_were_there(workshop: Workshop) -> None:
    workshop.routes(hot=[{"upstream": "a"}])
    workshop.policy()
    with door(workshop, worker=False) as sdk:
        made = create(sdk, [line(number) for number in range(30)])
        until(lambda: sdk.batches.retrieve(made.id).status == "in_progress", "it runs")
        with connect(workshop.url) as client:
            until(lambda: client.zcard("failover:accepted:ai-tasks") == 30, "its lines are submitted")
        worker = workshop.worker("--concurrency", "1")
        workshop.providers.behave("a", latency=[0.2, 0.2])
        until(lambda: counts(sdk, made.id)["completed"] >= 2, "some are done")
        assert sdk.batches.cancel(made.id).status in ("cancelling", "cancelled")
        over = ended(sdk, made.id)
        good, bad = lines_of(sdk, over.output_file_id), lines_of(sdk, over.error_file_id)
        assert over.status == "cancelled" and len(good) >= 2 and len(good) + len(bad) == 30
        assert {each["error"]["code"] for each in bad} == {"batch_cancelled"}
        assert sdk.batches.cancel(made.id).status == "cancelled"
        worker.terminate()


def test_batches_that_wait_out_an_outage_keep_no_others_out(sdk: openai.OpenAI, workshop: Workshop) -> None:
    workshop.providers.behave("a", status=503)
    waiting = [create(sdk, [line(number, f"{batch}") for number in range(2)]).id for batch in range(6)]
    until(lambda: {sdk.batches.retrieve(each).status for each in waiting} == {"in_progress"}, "all of them run")
    assert ended(sdk, create(sdk, ["no json"]).id).status == "failed"
    for each in waiting:
        sdk.batches.cancel(each)
    assert {ended(sdk, each).status for each in waiting} == {"cancelled"}


def test_a_batch_goes_on_after_its_web_process_and_its_worker_were_killed(workshop: Workshop) -> None:
    workshop.routes(hot=[{"upstream": "a"}])
    workshop.policy()
    workshop.providers.behave("a", latency=[0.05, 0.15])
    worker = workshop.worker("--concurrency", "20")
    with door(workshop, worker=False) as sdk:
        web, port = workshop.processes[-1], str(sdk.base_url.port)
        made = create(sdk, [line(number) for number in range(600)])
        until(lambda: counts(sdk, made.id)["completed"] >= 100, "some are done")
        for process in (web, worker):
            process.send_signal(signal.SIGKILL)
            process.wait()
        workshop.start("failover", "serve", PORT=port, FAILOVER_API_TOKEN=TOKEN)
        workshop.worker("--concurrency", "50")
        patient = sdk.with_options(max_retries=20)
        until(lambda: patient.models.list(), "it serves again")
        done = ended(patient, made.id, 100)
        answers = lines_of(patient, done.output_file_id)
        assert done.status == "completed" and done.request_counts.completed == 600
        assert [each["custom_id"] for each in answers] == [f"n{number}" for number in range(600)]
        account = workshop.providers.account("a")
        assert len(account["answers_by_key"]) == 600 and account["asked"] <= 600 + 20  # what was in flight at the kill


def test_files_can_be_kept_in_a_folder_and_a_tenant_sees_its_own(workshop: Workshop) -> None:
    workshop.routes(hot=[{"upstream": "a"}])
    workshop.policy()
    folder = workshop.folder / "kept"
    tokens = [
        workshop.run("failover", "tokens", "create", name, "--role", "tenant", "--tenant", name).stdout.strip()
        for name in ("acme", "other")
    ]
    with door(workshop, token=tokens[0], FILES_URL=str(folder)) as sdk:
        done = ended(sdk, create(sdk, [line(number) for number in range(20)]).id)
        assert len(lines_of(sdk, done.output_file_id)) == 20
        assert len(list(folder.rglob("*"))) >= 4
        stranger = sdk.with_options(api_key=tokens[1])
        for look in (
            lambda: stranger.files.content(done.output_file_id),
            lambda: stranger.batches.retrieve(done.id),
            lambda: stranger.batches.cancel(done.id),
            lambda: stranger.batches.create(
                input_file_id=done.input_file_id, endpoint="/v1/chat/completions", completion_window="24h"
            ),
        ):
            with pytest.raises(openai.NotFoundError):
                look()
        assert list(stranger.files.list()) == [] and list(stranger.batches.list()) == []
        for file_id in (done.output_file_id, done.input_file_id):
            sdk.files.delete(file_id)
        assert [path for path in folder.rglob("*") if path.is_file()] == []
