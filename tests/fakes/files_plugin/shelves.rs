//! State records, each a file.

use super::*;

/// State in a folder: a file for each record.
pub(super) struct Shelves;

struct Shelf(PathBuf);

impl Shelf {
    fn path(&self, id: &str, end: &str) -> PathBuf {
        self.0
            .join(format!("{}{end}", id.replace(['/', '\\'], "_")))
    }
}

#[async_trait]
impl StateBackend for Shelves {
    fn names(&self) -> Vec<String> {
        vec!["files".to_owned()]
    }

    async fn configure(&self, _name: &str, settings: Map) -> Result<Box<dyn StateStore>> {
        let folder = word(&settings, "folder");
        if folder.is_empty() {
            return Err(Error::invalid("backend `files` needs a `folder`"));
        }
        fs::create_dir_all(folder)?;
        Ok(Box::new(Shelf(folder.into())))
    }
}

fn decoded(path: &Path) -> Result<Option<StateRecord>> {
    match fs::read(path) {
        Ok(bytes) => prost::Message::decode(bytes.as_slice())
            .map(Some)
            .map_err(|error| Error::other(error.to_string())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[async_trait]
impl StateStore for Shelf {
    async fn get(&self, id: &str) -> Result<Option<StateRecord>> {
        decoded(&self.path(id, ".record"))
    }

    async fn save(&self, record: StateRecord) -> Result<()> {
        let path = self.path(&record.resource_id, ".record");
        Ok(fs::write(path, prost::Message::encode_to_vec(&record))?)
    }

    async fn list(&self, filter: &BTreeMap<String, String>) -> Result<Vec<StateRecord>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            let path = entry?.path();
            if path.extension().is_some_and(|end| end == "record") {
                found.extend(decoded(&path)?.filter(|record| matches(record, filter)));
            }
        }
        Ok(found)
    }

    async fn delete(&self, id: &str) -> Result<()> {
        fs::remove_file(self.path(id, ".record"))
            .map_err(|_| Error::not_found(format!("no record {id}")))
    }

    async fn lock(&self, id: &str) -> Result<()> {
        fs::File::create_new(self.path(id, ".lock"))
            .map(drop)
            .map_err(|_| Error::conflict(format!("{id} is held")))
    }

    async fn unlock(&self, id: &str) -> Result<()> {
        Ok(fs::remove_file(self.path(id, ".lock"))?)
    }
}
