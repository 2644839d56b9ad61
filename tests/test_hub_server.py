"""The in-memory Hub against the real clients, each in a child process of its own."""

from collections.abc import Iterator
from http.client import HTTPConnection, RemoteDisconnected
from pathlib import Path

import pytest

from tests.hub_server import HubServer, run_with_endpoint

LARGE = bytes(range(256)) * 50_000  # 12.8 MB, above the limit for files in git and one chunk of the client's downloads


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer() as server:
        yield server


def write_folder(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "notes").mkdir(parents=True)
    (folder / "notes" / "read me.txt").write_text("small")
    (folder / "large.dat").write_bytes(LARGE)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# card\n")


UPLOAD = """
    from huggingface_hub import HfApi

    HfApi().create_repo("org/thing", repo_type="{kind}")
    HfApi().upload_folder(folder_path="folder", repo_id="org/thing", repo_type="{kind}")
"""


@pytest.mark.parametrize(("kind", "prefix"), [("model", ""), ("dataset", "/datasets")])
def test_uploaded_folder_is_listed_and_downloads_unchanged(
    hub: HubServer, tmp_path: Path, kind: str, prefix: str
) -> None:
    write_folder(tmp_path)
    run_with_endpoint(hub, UPLOAD.format(kind=kind), tmp_path)
    assert len(hub.find("PUT", "/lfs-storage/")) == 1  # the large file alone
    assert len(hub.find("POST", f"{prefix}/org/thing.git/info/lfs/objects/batch")) == 1
    assert len(hub.find("POST", f"/api/{kind}s/org/thing/commit/main")) == 1

    run_with_endpoint(
        hub,
        f"""
        from pathlib import Path
        from huggingface_hub import HfApi, snapshot_download

        api, repo = HfApi(), {{"repo_id": "org/thing", "repo_type": "{kind}"}}
        assert api.create_repo(exist_ok=True, **repo).repo_id == "org/thing"
        names = [".gitattributes", "README.md", "large.dat", "notes/read me.txt"]
        assert api.list_repo_files(**repo) == names
        assert [entry.path for entry in api.list_repo_tree(**repo)] == [*names[:3], "notes"]
        assert [entry.path for entry in api.list_repo_tree(path_in_repo="notes", **repo)] == [names[3]]
        small, large = api.get_paths_info(paths=["notes/read me.txt", "large.dat", "absent"], **repo)
        assert (small.size, small.lfs, large.lfs.size) == (5, None, {len(LARGE)})
        info = api.repo_info(**repo)
        assert api.list_repo_refs(**repo).branches[0].target_commit == info.sha

        path = Path(snapshot_download(**repo))
        assert path.name == info.sha
        for name in names[1:]:
            assert Path("folder", name).read_bytes() == (path / name).read_bytes()
        """,
        tmp_path,
    )
    assert not [request for request in hub.requests if request.status == 501]


def test_second_download_transfers_only_what_changed(hub: HubServer, tmp_path: Path) -> None:
    write_folder(tmp_path)
    run_with_endpoint(hub, UPLOAD.format(kind="model"), tmp_path)
    download = "from huggingface_hub import snapshot_download; snapshot_download('org/thing')"
    run_with_endpoint(hub, download, tmp_path)
    assert len(hub.find("GET", "/resolve/")) == 4

    run_with_endpoint(hub, download, tmp_path)
    assert len(hub.find("GET", "/resolve/")) == 4

    update = "HfApi().upload_file(path_or_fileobj=b'new', path_in_repo='notes/read me.txt', repo_id='org/thing')"
    run_with_endpoint(hub, f"from huggingface_hub import HfApi; {update}", tmp_path)
    run_with_endpoint(hub, download, tmp_path)
    assert [request.path.split("/", 5)[-1] for request in hub.find("GET", "/resolve/")[4:]] == ["notes/read me.txt"]


def test_interrupted_download_resumes_where_it_broke(hub: HubServer, tmp_path: Path) -> None:
    write_folder(tmp_path)
    run_with_endpoint(hub, UPLOAD.format(kind="model"), tmp_path)
    hub.interrupt_after = 11 * 1024**2
    run_with_endpoint(
        hub,
        """
        from pathlib import Path
        from huggingface_hub import hf_hub_download

        assert Path(hf_hub_download("org/thing", "large.dat")).read_bytes() == Path("folder/large.dat").read_bytes()
        """,
        tmp_path,
    )
    assert [request.status for request in hub.find("GET", "/resolve/")] == [200, 206]


def test_commits_follow_branches_tags_and_parents(hub: HubServer, tmp_path: Path) -> None:
    run_with_endpoint(
        hub,
        """
        from pathlib import Path
        from huggingface_hub import HfApi, hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError

        api, repo = HfApi(), "org/thing"

        def put(content, revision="main", **options):
            options = {"path_or_fileobj": content, "path_in_repo": "a.txt", "repo_id": repo} | options
            return api.upload_file(revision=revision, **options).oid

        def read(revision):
            return Path(hf_hub_download(repo, "a.txt", revision=revision)).read_bytes()

        api.create_repo(repo)
        first = put(b"first")
        assert put(b"first") == first  # an unchanged file makes no commit
        api.create_tag(repo, tag="v1")
        api.create_branch(repo, branch="try/this")
        second = put(b"second", parent_commit=first)
        put(b"other", revision="try/this")
        reads = {"v1": b"first", first: b"first", second: b"second", "main": b"second", "try/this": b"other"}
        assert {revision: read(revision) for revision in reads} == reads
        try:
            put(b"third", parent_commit=first)
        except HfHubHTTPError as error:
            assert error.response.status_code == 412
        else:
            raise AssertionError("a commit on an outdated parent was accepted")
        api.delete_file("a.txt", repo)
        assert api.list_repo_files(repo) == [".gitattributes"]
        """,
        tmp_path,
    )


def test_missing_things_raise_the_errors_of_the_client(hub: HubServer, tmp_path: Path) -> None:
    child = run_with_endpoint(
        hub,
        """
        from huggingface_hub import HfApi, hf_hub_download

        api = HfApi()
        api.create_repo("org/thing")
        for call in (
            lambda: api.model_info("org/absent"),
            lambda: api.model_info("absent"),
            lambda: api.upload_file(path_or_fileobj=b"x", path_in_repo="x", repo_id="org/absent"),
            lambda: hf_hub_download("org/absent", "config.json"),
            lambda: hf_hub_download("org/thing", "config.json", repo_type="dataset"),
            lambda: api.model_info("org/thing", revision="absent"),
            lambda: hf_hub_download("org/thing", "config.json", revision="absent"),
            lambda: hf_hub_download("org/thing", "config.json"),
            lambda: list(api.list_repo_tree("org/thing", "absent")),
        ):
            try:
                call()
            except Exception as error:
                print(type(error).__name__)
        """,
        tmp_path,
    )
    repository, revision, entry = "RepositoryNotFoundError", "RevisionNotFoundError", "RemoteEntryNotFoundError"
    assert child.stdout.split() == [repository] * 5 + [revision] * 2 + [entry] * 2


def test_wrong_or_missing_token_is_refused(tmp_path: Path) -> None:
    with HubServer(token="hf_right") as hub:
        create = """
            from huggingface_hub import HfApi
            assert HfApi().whoami()["name"] == "tester"
            HfApi().create_repo("org/public")
            HfApi().create_repo("org/secret", private=True)
        """
        run_with_endpoint(hub, create, tmp_path)
        attempt = """
            from huggingface_hub import HfApi
            for call in HfApi().model_info, HfApi().create_repo:
                for repo in "org/public", "org/secret":
                    try:
                        print(call(repo).__class__.__name__)
                    except Exception as error:
                        print(type(error).__name__, error.response.status_code)
        """
        wrong = run_with_endpoint(hub, attempt, tmp_path, {"HF_TOKEN": "hf_wrong"}).stdout.splitlines()
        assert wrong == ["HfHubHTTPError 401"] * 4
        missing = run_with_endpoint(hub, attempt, tmp_path, {"HF_TOKEN": ""}).stdout.splitlines()
        assert missing == ["ModelInfo", "RepositoryNotFoundError 401", "HfHubHTTPError 401", "HfHubHTTPError 401"]
        assert set(hub.repos) == {("models", "org/public"), ("models", "org/secret")}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("PUT", f"/lfs-storage/{'0' * 64}", 400), ("POST", "/api/collections", 501), ("PUT", "/org/thing", 501)],
)
def test_unannounced_objects_and_unknown_routes_are_refused(
    hub: HubServer, method: str, path: str, status: int
) -> None:
    connection = HTTPConnection("127.0.0.1", hub.server_port, timeout=10)
    connection.request(method, path, body=b"bytes")
    assert connection.getresponse().status == status
    connection.close()
    assert hub.requests == [(method, path, status)]


def test_failure_of_the_server_is_raised_where_its_block_ends() -> None:
    with pytest.raises(ExceptionGroup, match="the hub server failed"), HubServer() as hub:
        connection = HTTPConnection("127.0.0.1", hub.server_port, timeout=10)
        connection.request("POST", "/api/repos/create", body=b"no JSON")
        with pytest.raises(RemoteDisconnected):
            connection.getresponse()
        connection.close()


def test_failing_child_raises_with_its_error_output(hub: HubServer, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="ValueError: the reason"):
        run_with_endpoint(hub, "raise ValueError('the reason')", tmp_path)


CONFIGURATION = """
from transformers import PretrainedConfig


class TinyConfig(PretrainedConfig):
    model_type = "tiny-of-test"

    def __init__(self, width=32, **kwargs):
        self.width = width
        super().__init__(**kwargs)
"""
MODELING = """
import torch
from transformers import PreTrainedModel

from .configuration_tiny import TinyConfig


class TinyModel(PreTrainedModel):
    config_class = TinyConfig

    def __init__(self, config):
        super().__init__(config)
        self.layers = torch.nn.ModuleList(torch.nn.Linear(config.width, config.width) for _ in range(3))
        self.post_init()

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x
"""


def test_model_with_its_own_code_is_pushed_in_shards_and_loads_by_repository_id(hub: HubServer, tmp_path: Path) -> None:
    author, user = tmp_path / "author", tmp_path / "user"
    (author / "tiny").mkdir(parents=True)
    user.mkdir()
    (author / "tiny" / "configuration_tiny.py").write_text(CONFIGURATION)
    (author / "tiny" / "modeling_tiny.py").write_text(MODELING)
    pushed = run_with_endpoint(
        hub,
        """
        import torch
        from tokenizers import Tokenizer, models, pre_tokenizers
        from transformers import PreTrainedTokenizerFast
        from tiny.configuration_tiny import TinyConfig
        from tiny.modeling_tiny import TinyModel

        torch.manual_seed(0)
        TinyConfig.register_for_auto_class()
        TinyModel.register_for_auto_class("AutoModel")
        model = TinyModel(TinyConfig())
        model.push_to_hub("org/tiny", max_shard_size="5KB", revision="try/shards")
        model.push_to_hub("org/tiny", max_shard_size="5KB")
        words = Tokenizer(models.WordLevel({"<unk>": 0, "pick": 1, "place": 2}, unk_token="<unk>"))
        words.pre_tokenizer = pre_tokenizers.Whitespace()
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>")
        tokenizer.chat_template = {"default": "{{ messages[0].content }}", "loud": "{{ messages[0].content }}!"}
        tokenizer.push_to_hub("org/tiny")
        print([tensor.numpy().tobytes().hex() for tensor in model.state_dict().values()])
        """,
        author,
        {"OMP_NUM_THREADS": "1"},
    )
    files = hub.repos["models", "org/tiny"].resolve("main").files
    assert {"modeling_tiny.py", "configuration_tiny.py", "config.json", "README.md"} < set(files)
    shards = [name for name in files if name.endswith(".safetensors")]
    assert len(shards) == 3
    assert all(files[name].lfs for name in shards)
    assert "try/shards" in hub.repos["models", "org/tiny"].branches

    loaded = run_with_endpoint(
        hub,
        """
        from transformers import AutoConfig, AutoModel, AutoProcessor, AutoTokenizer

        assert AutoConfig.from_pretrained("org/tiny", trust_remote_code=True).width == 32
        model = AutoModel.from_pretrained("org/tiny", trust_remote_code=True)
        for auto in AutoTokenizer, AutoProcessor:  # a repository without a processor gives its tokenizer
            tokenizer = auto.from_pretrained("org/tiny", trust_remote_code=True)
            assert tokenizer("place pick").input_ids == [2, 1]
            messages = [{"role": "user", "content": "pick"}]
            assert tokenizer.apply_chat_template(messages, chat_template="loud", tokenize=False) == "pick!"
        print([tensor.numpy().tobytes().hex() for tensor in model.state_dict().values()])
        """,
        user,
        {"OMP_NUM_THREADS": "1"},
    )
    assert loaded.stdout == pushed.stdout
    assert not [request for request in hub.requests if request.status == 501]
